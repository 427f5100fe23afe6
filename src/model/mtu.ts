// SPDX-License-Identifier: Apache-2.0
// How much of an underlay packet is left for a container: outer Ethernet-in-UDP headers of VXLAN (RFC 7348).
import type { Family } from './address.ts'

/** Bytes: inner Ethernet 14 + VXLAN 8 + UDP 8 + IP 20 or 40. */
export const overhead = (underlay: Family): number => (underlay === 4 ? 50 : 70)

export const insideMtu = (underlayMtu: number, family: Family): number => underlayMtu - overhead(family)
