// SPDX-License-Identifier: Apache-2.0
// This engine's part in the end of a network: what a user removed here is asked of the cluster; what the cluster asks is
// agreed to, or vetoed with the names of the containers that are on it.
import { WeftError } from '../base/errors.ts'
import type { Bindings } from '../control/bindings.ts'
import type { Context } from '../control/context.ts'
import type { Departures } from '../control/departures.ts'
import type { Networks } from '../control/networks.ts'
import type { NetworkId } from '../model/ids.ts'
import type { Network } from '../model/network.ts'
import { type Engine, isSilent } from './engine.ts'
import { type Holders, inUse } from './holders.ts'

export interface RemovalsParts {
  readonly context: Context
  readonly engine: Engine
  readonly bindings: Bindings
  readonly networks: Networks
  readonly departures: Pick<Departures, 'has' | 'addAll'>
  readonly holders: Holders
  /** Who has just made it here is about to use it. */
  readonly isYoung: (docker: string) => boolean
  readonly lookAgain: (afterMs: number) => void
  readonly signal: () => AbortSignal
}

export interface Removals {
  /** `docker network rm` of this Docker network. False: not yet. */
  ask(record: Network, docker: string): Promise<boolean>
  /** The cluster removes it: agrees or vetoes, and takes the record away once all have agreed. */
  answer(record: Network): Promise<void>
  /** Vetoes by what the store knows: the engine knows more, but may not answer for long. */
  vetoWithoutEngine(id: NetworkId): Promise<void>
  /** Takes a Docker network off this engine. */
  discard(docker: string): Promise<void>
}

/** A host that does not answer is not waited for longer. */
const removalMs = 10_000
/** For what is gone here to be erased. */
const erasureMs = 1000

export const openRemovals = ({
  context: { mirror, node, clock, log },
  engine,
  bindings,
  networks,
  departures,
  holders: { users, endpoints, endpointTitles, isLeft },
  isYoung,
  lookAgain,
  signal,
}: RemovalsParts): Removals => {
  const veto = async ({ id, name }: Network, why: string): Promise<void> => {
    log.warn({ network: name }, `removal vetoed, also for what joined it by weft.network: ${why}`)
    const said = { node, at: new Date(clock.now()).toISOString(), why }
    await networks.update(id, now => ({ ...now, state: { kind: 'active', veto: said } }), signal())
  }

  const discard = async (docker: string): Promise<void> => {
    await bindings.mark(docker, 'weft')
    await engine.removeNetwork(docker).catch(async error => {
      if (!isSilent(error)) await bindings.mark(docker, undefined) // it refused
      throw error
    })
    await bindings.unbind(docker)
  }

  const agree = (id: NetworkId): Promise<unknown> =>
    networks.update(
      id,
      now =>
        now.state.kind === 'removing'
          ? { ...now, state: { ...now.state, acks: [...now.state.acks, node] } }
          : undefined,
      signal(),
    )

  return {
    async ask(record, docker) {
      const about = { network: record.name, id: record.id }
      if (record.origin.by === 'weft') {
        log.warn(about, 'docker network rm removed a replica; it comes back, use weft network rm')
        return true
      }
      const left = endpoints(record.id) // now: while we ask, another may join the network, and bring its own
      // Docker itself counts running containers only
      const holders = new Set(await users(docker, record.name))
      if (holders.size > 0) return veto(record, inUse(node, holders)).then(() => true)
      // what the store still knows here is of containers that are gone: it goes first, or another host would object
      await departures.addAll(left.filter(({ id }) => !departures.has(id)).map(({ id }) => [id, record.id]))
      if (left.length > 0) {
        lookAgain(erasureMs)
        return false
      }
      // the store's word counts: a veto of our own may not have come back to the mirror yet
      await networks.update(
        record.id,
        now =>
          now.state.kind === 'active'
            ? {
                ...now,
                state: { kind: 'removing', since: new Date(clock.now()).toISOString(), by: node, acks: [node] },
              }
            : undefined,
        signal(),
      )
      log.info(about, 'docker network rm: asking the cluster to remove it')
      return true
    },
    async answer(record) {
      if (record.state.kind !== 'removing') return
      if (isLeft(record.id)) return lookAgain(erasureMs)
      const { acks, since } = record.state
      const here = [...bindings.all()].filter(binding => binding.network === record.id)
      if (here.some(({ docker }) => isYoung(docker))) return veto(record, `it has just been made on host ${node} too`)
      const holders = new Set([
        ...endpointTitles(record.id),
        ...(await Promise.all(here.map(binding => users(binding.docker)))).flat(),
      ])
      if (holders.size > 0) return veto(record, inUse(node, holders))
      for (const { docker } of here) await discard(docker)
      if (!acks.includes(node)) await agree(record.id)
      const waiting = [...mirror.snapshot.presence.keys()].filter(name => name !== node && !acks.includes(name))
      const late = clock.now() - Date.parse(since) > removalMs
      if (waiting.length > 0 && !late) return lookAgain(removalMs)
      try {
        await networks.remove(record.id, signal())
      } catch (error) {
        if (!(error instanceof WeftError && error.code === 'IN_USE')) throw error
        return veto(record, error.message)
      }
      log.info({ network: record.name, id: record.id }, 'network removed from the cluster')
    },
    async vetoWithoutEngine(id) {
      const record = mirror.snapshot.networks.get(id)?.record
      const holders = new Set(endpointTitles(id))
      if (record?.state.kind === 'removing' && holders.size > 0 && !isLeft(id)) await veto(record, inUse(node, holders))
    },
    discard,
  }
}
