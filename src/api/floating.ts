// SPDX-License-Identifier: Apache-2.0
// Floating addresses for people: who has one, or why nobody.
import type { Floating } from '../model/floating.ts'
import { serviceText, unheldBecause, wantedFloating } from '../model/floating-hosts.ts'
import type { Snapshot } from '../model/snapshot.ts'
import type * as wire from './gen/weft.ts'

/** `local`: plain address → what this host met when it tried to take it. */
export const floatingMessage = (
  snapshot: Snapshot,
  floating: Floating,
  local: ReadonlyMap<string, string>,
): wire.FloatingAddress => {
  const { address, cidr, dev, network, service } = floating
  const owner = wantedFloating(snapshot).get(address)
  const foreign = owner && (owner.network !== network || owner.service !== service)
  const claim = foreign ? undefined : snapshot.floating.get(address)?.record
  const why = foreign
    ? `${serviceText(snapshot, owner)} asks for it too`
    : (unheldBecause(snapshot, floating) ?? local.get(address) ?? 'it is being taken')
  return { address: cidr, dev, node: claim?.node ?? '', since: claim?.since ?? '', problem: claim ? '' : why }
}

/** Sentences about those that nobody has. */
export const unheld = (snapshot: Snapshot, local: ReadonlyMap<string, string>): string[] =>
  [...wantedFloating(snapshot).values()].flatMap(floating => {
    const { problem } = floatingMessage(snapshot, floating, local)
    return problem === ''
      ? []
      : [`address ${floating.cidr} of ${serviceText(snapshot, floating)} has no holder: ${problem}`]
  })
