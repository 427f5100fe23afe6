// SPDX-License-Identifier: Apache-2.0
// Hooks of base chains: where in the packet's way, in which order, what happens at the end.
import type { Attribute, Writer } from '../message.ts'
import type { NftFamily, NftHook } from './types.ts'
import {
  hookNumbers,
  NF_ACCEPT,
  NF_DROP,
  NF_INET_INGRESS,
  NF_NETDEV_INGRESS,
  NFTA_CHAIN,
  NFTA_DEVICE,
  NFTA_HOOK,
} from './uapi.ts'

const ifnamsiz = 16

const numberOf = (family: NftFamily, hook: NftHook['hook']): number => {
  if (hook !== 'ingress') return hookNumbers[hook]
  return family === 'netdev' ? NF_NETDEV_INGRESS : NF_INET_INGRESS
}

const nameOf = (family: NftFamily, number: number): NftHook['hook'] | undefined => {
  if (number === numberOf(family, 'ingress')) return 'ingress'
  if (family === 'netdev') return undefined
  return (Object.keys(hookNumbers) as (keyof typeof hookNumbers)[]).find(name => hookNumbers[name] === number)
}

/** NFTA_CHAIN_HOOK, POLICY and TYPE. */
export const writeHook = (w: Writer, family: NftFamily, hook: NftHook): void => {
  w.nest(NFTA_CHAIN.HOOK, () => {
    w.attrBe32(NFTA_HOOK.HOOKNUM, numberOf(family, hook.hook))
    w.attrBe32(NFTA_HOOK.PRIORITY, hook.priority >>> 0)
    if (hook.device !== undefined) w.attrString(NFTA_HOOK.DEV, hook.device, ifnamsiz)
  })
  w.attrBe32(NFTA_CHAIN.POLICY, hook.policy === 'accept' ? NF_ACCEPT : NF_DROP)
  w.attrString(NFTA_CHAIN.TYPE, hook.type)
}

const isType = (text: string | undefined): text is NftHook['type'] =>
  text === 'filter' || text === 'nat' || text === 'route'

/** undefined for a hook we do not know. */
export const readHook = (
  family: NftFamily,
  hook: Attribute,
  policy: number | undefined,
  type: string | undefined,
): NftHook | undefined => {
  let number: number | undefined
  let priority = 0
  let device: string | undefined
  for (const attr of hook.nested()) {
    if (attr.type === NFTA_HOOK.HOOKNUM) number = attr.be32()
    else if (attr.type === NFTA_HOOK.PRIORITY) priority = attr.be32() | 0
    else if (attr.type === NFTA_HOOK.DEV) device = attr.text()
    else if (attr.type === NFTA_HOOK.DEVS) device ??= onlyDevice(attr)
  }
  const name = number === undefined ? undefined : nameOf(family, number)
  if (name === undefined || !isType(type)) return undefined
  return {
    type,
    hook: name,
    priority,
    policy: policy === NF_DROP ? 'drop' : 'accept',
    ...(device === undefined ? {} : { device }),
  }
}

/** Chains of ours have one device; one of several is not told as if it were that. */
const onlyDevice = (devices: Attribute): string | undefined => {
  const names: string[] = []
  for (const attr of devices.nested()) if (attr.type === NFTA_DEVICE.NAME) names.push(attr.text())
  return names.length === 1 ? names[0] : undefined
}
