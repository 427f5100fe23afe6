// SPDX-License-Identifier: Apache-2.0
// Constants of linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h. The kernel's name
// is group, underscore, member: CTA_TUPLE.IP is CTA_TUPLE_IP. test/netlink/uapi.test.ts compares every one with the
// installed headers.

export const NFNL_SUBSYS_CTNETLINK = 1

export const IPCTNL_MSG_CT = { NEW: 0, GET: 1, DELETE: 2 } as const

export const CTA = {
  TUPLE_ORIG: 1,
  TUPLE_REPLY: 2,
  STATUS: 3,
  PROTOINFO: 4,
  TIMEOUT: 7,
  MARK: 8,
  ID: 12,
  ZONE: 18,
  MARK_MASK: 21,
  FILTER: 25,
} as const
export const CTA_TUPLE = { IP: 1, PROTO: 2, ZONE: 3 } as const
export const CTA_IP = { V4_SRC: 1, V4_DST: 2, V6_SRC: 3, V6_DST: 4 } as const
export const CTA_PROTO = {
  NUM: 1,
  SRC_PORT: 2,
  DST_PORT: 3,
  ICMP_ID: 4,
  ICMP_TYPE: 5,
  ICMP_CODE: 6,
  ICMPV6_ID: 7,
  ICMPV6_TYPE: 8,
  ICMPV6_CODE: 9,
} as const
export const CTA_PROTOINFO = { TCP: 1 } as const
export const CTA_PROTOINFO_TCP = { STATE: 1 } as const
export const CTA_FILTER = { ORIG_FLAGS: 1, REPLY_FLAGS: 2 } as const

export const IPS = {
  SEEN_REPLY: 2,
  ASSURED: 4,
  SRC_NAT: 0x10,
  DST_NAT: 0x20,
} as const

export const TCP_CONNTRACK = {
  NONE: 0,
  SYN_SENT: 1,
  SYN_RECV: 2,
  ESTABLISHED: 3,
  FIN_WAIT: 4,
  CLOSE_WAIT: 5,
  LAST_ACK: 6,
  TIME_WAIT: 7,
  CLOSE: 8,
  SYN_SENT2: 9,
} as const
