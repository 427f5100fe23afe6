// SPDX-License-Identifier: Apache-2.0
// Chains of iptables in which rules of ours are guests come with Docker's start, or with the first ip6tables command of
// somebody's, and whether FORWARD goes to Docker's changes with its rules: seen by the kernel's own notifications.
import type { Clock, Timer } from '../base/clock.ts'
import type { Closeable } from '../base/lifecycle.ts'
import { attributes, type Message } from '../netlink/message.ts'
import { openMonitor } from '../netlink/monitor.ts'
import { messageType, nfgenmsgLength } from '../netlink/nft/request.ts'
import { familyOfNumber } from '../netlink/nft/types.ts'
import { NFT_MSG, NFTA_CHAIN, NFTA_RULE } from '../netlink/nft/uapi.ts'
import { NETLINK_NETFILTER } from '../netlink/uapi.ts'
import { type GuestChain, guestChainNames, userChain } from './guest-chains.ts'

const nftGroup = 7 // NFNLGRP_NFTABLES
/** A ruleset comes in many transactions. */
const settleMs = 100

export interface ChainWatchParts {
  /** Where rules of ours are guests, as far as known. */
  readonly known: () => readonly GuestChain[]
  /** It is not so any more. */
  readonly changed: () => void
  readonly clock: Clock
}

const ruleTypes = [NFT_MSG.NEWRULE, NFT_MSG.DELRULE].map(messageType)
const isInForward = (message: Message): boolean => {
  if (!['ip', 'ip6'].includes(familyOfNumber(message.u8()) ?? '')) return false
  for (const attribute of attributes(message, nfgenmsgLength))
    if (attribute.type === NFTA_RULE.CHAIN) return attribute.text() === 'FORWARD'
  return false
}

/** In the process's own namespace. */
export const openChainWatch = async ({ known, changed, clock }: ChainWatchParts): Promise<Closeable> => {
  let timer: Timer | undefined
  const soon = (): void => {
    timer ??= clock.after(settleMs, () => {
      timer = undefined
      changed()
    })
  }
  const news = (message: Message): boolean => {
    if (ruleTypes.includes(message.type)) return isInForward(message)
    const came = message.type === messageType(NFT_MSG.NEWCHAIN)
    if (!came && message.type !== messageType(NFT_MSG.DELCHAIN)) return false
    const family = familyOfNumber(message.u8())
    let name = ''
    for (const attribute of attributes(message, nfgenmsgLength))
      if (attribute.type === NFTA_CHAIN.NAME) name = attribute.text()
    if (!guestChainNames.includes(name)) return false
    return name === userChain || came !== known().some(one => one.family === family)
  }
  const monitor = await openMonitor({
    protocol: NETLINK_NETFILTER,
    groups: [nftGroup],
    onMessages: messages => {
      if (messages.some(news)) soon()
    },
    onLost: soon,
  })
  return {
    async close() {
      timer?.cancel()
      await monitor.close()
    },
  }
}
