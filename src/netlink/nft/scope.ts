// SPDX-License-Identifier: Apache-2.0
// What the rule knows of its packet so far, and the checks it has to make before it may look at a header. nft makes
// the same ones in the same places: `nft --debug=netlink` shows them, and the tests compare.
import type { Expression } from './expression.ts'
import { little, type NftFamily, protocols } from './types.ts'
import { NFT_CMP, NFT_META, NFT_PAYLOAD } from './uapi.ts'

export type Network = 'ip' | 'ip6' | 'arp'

const ethertypes: Readonly<Record<Network, number>> = { ip: 0x0800, ip6: 0x86dd, arp: 0x0806 }
const nfprotos: Readonly<Record<Network, number>> = { ip: 2, ip6: 10, arp: 3 }
const arphrdEther = 1

export const hostU16 = (value: number): Buffer => {
  const out = Buffer.alloc(2)
  if (little) out.writeUInt16LE(value)
  else out.writeUInt16BE(value)
  return out
}
const be16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])

export class Scope {
  readonly family: NftFamily
  readonly out: Expression[] = []
  #ether = false
  #network: Network | undefined
  /** Number of a protocol; 'several' after a comparison with more than one. */
  #transport: number | 'several' | undefined

  constructor(family: NftFamily) {
    this.family = family
    if (family === 'ip' || family === 'ip6') this.#network = family
  }

  get network(): Network | undefined {
    return this.#network
  }
  get transport(): number | 'several' | undefined {
    return this.#transport
  }

  #equal(data: Buffer): void {
    this.out.push({ kind: 'cmp', sreg: 1, op: NFT_CMP.EQ, data })
  }

  /** The device speaks Ethernet. */
  requireEther(): undefined {
    if (this.#ether) return
    this.out.push({ kind: 'meta', key: NFT_META.IIFTYPE, dreg: 1 })
    this.#equal(hostU16(arphrdEther))
    this.#ether = true
  }

  /** Why not, if the rule can never be about this. */
  requireNetwork(wanted: Network): string | undefined {
    if (this.#network === wanted) return undefined
    if (this.#network !== undefined) return `${wanted} in a rule about ${this.#network}`
    if (this.family === 'inet' && wanted === 'arp') return 'inet tables see no arp'
    if (this.#ether) {
      this.out.push({ kind: 'payload', dreg: 1, base: NFT_PAYLOAD.LL_HEADER, offset: 12, length: 2 })
      this.#equal(be16(ethertypes[wanted]))
    } else if (this.family === 'inet') {
      this.out.push({ kind: 'meta', key: NFT_META.NFPROTO, dreg: 1 })
      this.#equal(Buffer.from([nfprotos[wanted]]))
    } else {
      this.out.push({ kind: 'meta', key: NFT_META.PROTOCOL, dreg: 1 })
      this.#equal(be16(ethertypes[wanted]))
    }
    this.#network = wanted
    return undefined
  }

  requireTransport(name: 'tcp' | 'udp' | 'sctp' | 'icmp' | 'ipv6-icmp'): string | undefined {
    const wanted = protocols[name]!
    if (this.#transport === wanted) return undefined
    if (this.#transport !== undefined) return `${name} in a rule about another protocol`
    if (name === 'icmp' || name === 'ipv6-icmp') {
      const why = this.requireNetwork(name === 'icmp' ? 'ip' : 'ip6')
      if (why !== undefined) return why
    }
    this.out.push({ kind: 'meta', key: NFT_META.L4PROTO, dreg: 1 })
    this.#equal(Buffer.from([wanted]))
    this.#transport = wanted
    return undefined
  }

  /** The rule compared the ethertype, the family, or the protocol: what follows needs no check of its own. */
  learnEthertype(value: number): void {
    for (const network of ['ip', 'ip6', 'arp'] as const) {
      if (ethertypes[network] === value) this.#network ??= network
    }
  }
  learnFamily(value: number): void {
    for (const network of ['ip', 'ip6'] as const) if (nfprotos[network] === value) this.#network ??= network
  }
  learnTransport(value: number | 'several'): void {
    this.#transport ??= value
  }
}
