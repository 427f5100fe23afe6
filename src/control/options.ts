// SPDX-License-Identifier: Apache-2.0
// The options of a network (`-o`): known ones checked, unknown ones refused with the nearest known name, and what does
// nothing yet refused too, never ignored: whoever writes enable_icc=false believes that containers are kept apart.
import { WeftError } from '../base/errors.ts'
import { vniRange } from '../model/ids.ts'
import type { Network } from '../model/network.ts'

export interface NetworkOptions {
  /** weft.network: join or make the cluster network of this name. */
  readonly network?: string
  readonly vni?: number
  /** Inside MTU in bytes. */
  readonly mtu?: number
}

/** No engine makes a network of such a name (moby, runconfig). */
const dockersNames: ReadonlySet<string> = new Set(['bridge', 'host', 'none', 'default'])
/** As Docker's overlay calls it. */
const encryptedOfOverlay = 'encrypted'
const mtuOption = 'com.docker.network.driver.mtu'
export const knownOptions = [
  'weft.network',
  'weft.publish',
  'weft.policy',
  'weft.encrypted',
  'weft.vni',
  mtuOption,
] as const

export const parseOptions = (options: Readonly<Record<string, string>>): NetworkOptions => {
  for (const name of Object.keys(options)) if (name !== encryptedOfOverlay) refuseUnknown(name)
  oneOf(options, 'weft.publish', ['cluster', 'local'])
  oneOf(options, 'weft.policy', ['allow'], 'policy (deny) is not built yet')
  oneOf(options, 'weft.encrypted', ['false'], 'encryption (true) is not built yet')
  oneOf(options, encryptedOfOverlay, ['false'], 'encryption is not built yet')
  const network = parseNetworkName(options['weft.network'], 'option')
  const vni = integer(options, 'weft.vni', 1, vniRange.last)
  const mtu = integer(options, mtuOption, 1280, 65000)
  return {
    ...(network === undefined ? {} : { network }),
    ...(vni === undefined ? {} : { vni }),
    ...(mtu === undefined ? {} : { mtu }),
  }
}

/** What a network has of which no option was given. */
const defaults: Readonly<Record<string, string>> = {
  'weft.publish': 'cluster',
  'weft.policy': 'allow',
  'weft.encrypted': 'false',
}

/** The first option that was asked for and is not true of that network, to be said after its name. */
export const otherOption = (asked: Readonly<Record<string, string>>, there: Network): string | undefined => {
  const numbers: Readonly<Record<string, number>> = { [mtuOption]: there.mtu, 'weft.vni': there.vni }
  for (const name of knownOptions) {
    const wanted = asked[name]
    if (wanted === undefined || name === 'weft.network') continue
    const has = numbers[name] ?? there.options[name] ?? defaults[name]
    if (typeof has === 'number' ? Number(wanted) !== has : wanted !== has)
      return `has ${name}=${has}, not ${wanted}: leave that option out to join it`
  }
  return undefined
}

/** The value of weft.network; `what` says which kind of option it came by. */
export const parseNetworkName = (name: string | undefined, what: string): string | undefined => {
  if (name !== undefined && !/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/.test(name))
    throw new WeftError(
      'INVALID',
      `${what} weft.network: ${JSON.stringify(name)} is not a network name: use letters, digits, ".", "_" and "-"`,
    )
  if (name !== undefined && dockersNames.has(name))
    throw new WeftError('INVALID', `${what} weft.network: ${name} is a network of Docker's own: choose another name`)
  return name
}

/** What a container's connection is given (`--driver-opt`): weft has nothing for it, and what does nothing is refused. */
export const refuseEndpointOptions = (options: Readonly<Record<string, unknown>>): void => {
  for (const name of Object.keys(options)) {
    if (!name.startsWith('weft.')) continue // Docker's own come the same way
    refuseUnknown(name)
    throw new WeftError(
      'UNKNOWN_OPTION',
      `option ${name} is one of networks, and does nothing for a single container: docker network create -o ${name}=…`,
    )
  }
}

const refuseUnknown = (name: string): void => {
  if ((knownOptions as readonly string[]).includes(name)) return
  const meant = nearest(name.toLowerCase(), knownOptions)
  const remedy =
    name.startsWith('weft.') || distance(name.toLowerCase(), meant) <= mostTypos
      ? `did you mean ${meant}?`
      : `and would do nothing in a network of weft: leave it out (there are ${knownOptions.join(', ')})`
  throw new WeftError('UNKNOWN_OPTION', `option ${name} is unknown, ${remedy}`)
}

const oneOf = (
  options: Readonly<Record<string, string>>,
  name: string,
  works: readonly string[],
  why?: string,
): void => {
  const value = options[name]
  if (value !== undefined && !works.includes(value))
    throw new WeftError(
      'INVALID',
      `option ${name}=${value} is not available: use ${works.join(' or ')}${why === undefined ? '' : `; ${why}`}`,
    )
}

const integer = (
  options: Readonly<Record<string, string>>,
  name: string,
  least: number,
  most: number,
): number | undefined => {
  const text = options[name]
  if (text === undefined) return undefined
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < least || value > most)
    throw new WeftError('INVALID', `option ${name}=${text} is not a whole number from ${least} to ${most}`)
  return value
}

const mostTypos = 3

/** Nearest by edit distance. */
export const nearest = (text: string, known: readonly string[]): string =>
  known.reduce((best, next) => (distance(text, next) < distance(text, best) ? next : best))

const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}
