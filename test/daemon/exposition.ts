// SPDX-License-Identifier: Apache-2.0
// Reads the text format of Prometheus, version 0.0.4, and refuses what is wrong in it or against the naming conventions.

export interface MetricFamily {
  readonly type: string
  readonly samples: readonly {
    readonly name: string
    readonly labels: Record<string, string>
    readonly value: number
  }[]
}

const plain = (text: string): string =>
  text.replaceAll(/\\(.)/g, (_, c: string) => {
    if (c === 'n') return '\n'
    if (c === '\\' || c === '"') return c
    throw new Error(`\\${c} is no escape`)
  })

const parseLabels = (text: string): Record<string, string> => {
  const labels: Record<string, string> = {}
  const one = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"(?:,|$)/y
  while (one.lastIndex < text.length) {
    const at = one.lastIndex
    const match = one.exec(text)
    if (!match) throw new Error(`labels ${text} from ${at}`)
    if (Object.hasOwn(labels, match[1]!)) throw new Error(`label ${match[1]} twice in ${text}`)
    labels[match[1]!] = plain(match[2]!)
  }
  return labels
}

const parseValue = (text: string): number => {
  if (/^[+-]?Inf$/.test(text)) return text.startsWith('-') ? -Infinity : Infinity
  const value = Number(text)
  // the library writes "Nan"; Prometheus reads it in any case
  if (text === '' || (Number.isNaN(value) && text.toLowerCase() !== 'nan')) throw new Error(`value ${text}`)
  return value
}

/** By name. Throws for the first line that is wrong. */
export const parseExposition = (text: string): ReadonlyMap<string, MetricFamily> => {
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  const families = new Map<string, { type: string; samples: MetricFamily['samples'][number][] }>()
  const helped = new Set<string>()
  const seen = new Set<string>()
  let current = ''
  for (const line of text.split('\n')) {
    if (line === '') continue
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line)
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary)$/.exec(line)
    if (help) {
      if (helped.has(help[1]!)) throw new Error(`${help[1]} has two helps`)
      helped.add(help[1]!)
    } else if (type) {
      current = type[1]!
      if (families.has(current)) throw new Error(`${current} has two types`)
      if (!helped.has(current)) throw new Error(`${current} has no help`)
      families.set(current, { type: type[2]!, samples: [] })
    } else {
      const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
      if (!match) throw new Error(`line ${line}`)
      const [, name, labels = '', value] = match
      const family = families.get(current)
      const suffix =
        family?.type === 'histogram' ? '(_bucket|_sum|_count)' : family?.type === 'summary' ? '(_sum|_count)?' : ''
      if (!family || !new RegExp(`^${current}${suffix}$`).test(name!))
        throw new Error(`${name} stands below ${current}`)
      const sample = { name: name!, labels: parseLabels(labels), value: parseValue(value!) }
      const key = JSON.stringify([name, Object.entries(sample.labels).sort()])
      if (seen.has(key)) throw new Error(`${line} is there twice`)
      seen.add(key)
      family.samples.push(sample)
    }
  }
  for (const [name, family] of families) check(name, family)
  return families
}

const check = (name: string, { type, samples }: MetricFamily): void => {
  if ((type === 'counter') !== name.endsWith('_total')) throw new Error(`${name} is a ${type}`)
  if (type === 'histogram' && !name.endsWith('_seconds')) throw new Error(`${name} says no unit`)
  if (type === 'counter' && samples.some(({ value }) => !(value >= 0))) throw new Error(`${name} is below 0`)
  if (type !== 'histogram') return
  const counts = new Map<string, { last: number; bound: number; total?: number }>()
  for (const sample of samples) {
    const { le, ...labels } = sample.labels
    const key = JSON.stringify(Object.entries(labels).sort())
    const known = counts.get(key) ?? { last: 0, bound: -Infinity }
    counts.set(key, known)
    if (sample.name.endsWith('_count')) known.total = sample.value
    if (!sample.name.endsWith('_bucket')) continue
    const bound = parseValue(le!)
    if (bound <= known.bound || sample.value < known.last) throw new Error(`${name} ${key}: bucket ${le}`)
    known.bound = bound
    known.last = sample.value
  }
  for (const [key, { last, bound, total }] of counts)
    if (bound !== Infinity || last !== total) throw new Error(`${name} ${key}: +Inf ${last}, count ${total}`)
}

/** The sum of the samples that carry these labels; undefined: there is none. */
export const metricValue = (
  families: ReadonlyMap<string, MetricFamily>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined => {
  const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''))
  const found = family?.samples.filter(
    sample => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  )
  return found && found.length > 0 ? found.reduce((sum, { value }) => sum + value, 0) : undefined
}
