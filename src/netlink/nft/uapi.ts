// SPDX-License-Identifier: Apache-2.0
// Constants of linux/netfilter/nf_tables.h and nfnetlink.h. The kernel's name is group, underscore, member:
// NFTA_TABLE.NAME is NFTA_TABLE_NAME. test/netlink/nft/uapi.test.ts compares every one with the installed headers.

export const NFNL_SUBSYS_NFTABLES = 10
export const NFNL_MSG_BATCH_BEGIN = 0x10
export const NFNL_MSG_BATCH_END = 0x11

export const NFPROTO_INET = 1
export const NFPROTO_IPV4 = 2
export const NFPROTO_NETDEV = 5
export const NFPROTO_IPV6 = 10

export const NFT_MSG = {
  NEWTABLE: 0,
  GETTABLE: 1,
  DELTABLE: 2,
  NEWCHAIN: 3,
  GETCHAIN: 4,
  DELCHAIN: 5,
  NEWRULE: 6,
  GETRULE: 7,
  DELRULE: 8,
  NEWSET: 9,
  GETSET: 10,
  DELSET: 11,
  NEWSETELEM: 12,
  GETSETELEM: 13,
  DELSETELEM: 14,
  NEWGEN: 15,
  GETGEN: 16,
  NEWOBJ: 18,
  GETOBJ: 19,
  DELOBJ: 20,
} as const

export const NFTA_LIST = { ELEM: 1 } as const
export const NFTA_TABLE = { NAME: 1, FLAGS: 2, HANDLE: 4, USERDATA: 6 } as const
/** enum nft_table_flags */
export const NFT_TABLE_F = { DORMANT: 1 } as const
export const NFTA_CHAIN = { TABLE: 1, HANDLE: 2, NAME: 3, HOOK: 4, POLICY: 5, TYPE: 7, FLAGS: 10, ID: 11 } as const
export const NFTA_HOOK = { HOOKNUM: 1, PRIORITY: 2, DEV: 3, DEVS: 4 } as const
export const NFTA_DEVICE = { NAME: 1 } as const
export const NFTA_RULE = { TABLE: 1, CHAIN: 2, HANDLE: 3, EXPRESSIONS: 4, POSITION: 6, USERDATA: 7 } as const
export const NFTA_SET = {
  TABLE: 1,
  NAME: 2,
  FLAGS: 3,
  KEY_TYPE: 4,
  KEY_LEN: 5,
  DATA_TYPE: 6,
  DATA_LEN: 7,
  DESC: 9,
  ID: 10,
  USERDATA: 13,
} as const
export const NFTA_SET_DESC = { SIZE: 1, CONCAT: 2 } as const
export const NFTA_SET_FIELD = { LEN: 1 } as const
export const NFTA_SET_ELEM = { KEY: 1, DATA: 2, FLAGS: 3, KEY_END: 10 } as const
export const NFTA_SET_ELEM_LIST = { TABLE: 1, SET: 2, ELEMENTS: 3, SET_ID: 4 } as const
export const NFTA_DATA = { VALUE: 1, VERDICT: 2 } as const
export const NFTA_VERDICT = { CODE: 1, CHAIN: 2 } as const
export const NFTA_GEN = { ID: 1 } as const

export const NFT_SET = {
  ANONYMOUS: 1,
  CONSTANT: 2,
  INTERVAL: 4,
  MAP: 8,
  TIMEOUT: 0x10,
  OBJECT: 0x40,
  CONCAT: 0x80,
} as const
export const NFT_SET_ELEM = { INTERVAL_END: 1, CATCHALL: 2 } as const
export const NFT_DATA_VERDICT = 0xffffff00

/** NF_DROP and NF_ACCEPT of linux/netfilter.h, then nft_verdicts. */
export const NF_DROP = 0
export const NF_ACCEPT = 1
export const NFT_CONTINUE = -1
export const NFT_JUMP = -3
export const NFT_GOTO = -4
export const NFT_RETURN = -5

export const NFTA_EXPR = { NAME: 1, DATA: 2 } as const
export const NFTA_PAYLOAD = {
  DREG: 1,
  BASE: 2,
  OFFSET: 3,
  LEN: 4,
  SREG: 5,
  CSUM_TYPE: 6,
  CSUM_OFFSET: 7,
  CSUM_FLAGS: 8,
} as const
export const NFTA_META = { DREG: 1, KEY: 2, SREG: 3 } as const
export const NFTA_CT = { DREG: 1, KEY: 2, DIRECTION: 3, SREG: 4 } as const
export const NFTA_CMP = { SREG: 1, OP: 2, DATA: 3 } as const
export const NFTA_RANGE = { SREG: 1, OP: 2, FROM_DATA: 3, TO_DATA: 4 } as const
export const NFTA_BITWISE = { SREG: 1, DREG: 2, LEN: 3, MASK: 4, XOR: 5, OP: 6 } as const
export const NFTA_LOOKUP = { SET: 1, SREG: 2, DREG: 3, SET_ID: 4, FLAGS: 5 } as const
export const NFTA_IMMEDIATE = { DREG: 1, DATA: 2 } as const
/** nf_tables_compat.h: a match of iptables. */
export const NFTA_MATCH = { NAME: 1, INFO: 3 } as const
export const NFTA_TARGET = { NAME: 1 } as const
export const NFTA_COUNTER = { BYTES: 1, PACKETS: 2 } as const
export const NFTA_LIMIT = { RATE: 1, UNIT: 2, BURST: 3, TYPE: 4, FLAGS: 5 } as const
export const NFTA_LOG = { GROUP: 1, PREFIX: 2, SNAPLEN: 3, QTHRESHOLD: 4, LEVEL: 5, FLAGS: 6 } as const
export const NFTA_NAT = {
  TYPE: 1,
  FAMILY: 2,
  REG_ADDR_MIN: 3,
  REG_ADDR_MAX: 4,
  REG_PROTO_MIN: 5,
  REG_PROTO_MAX: 6,
  FLAGS: 7,
} as const
export const NFTA_MASQ = { FLAGS: 1, REG_PROTO_MIN: 2, REG_PROTO_MAX: 3 } as const
export const NFTA_REDIR = { REG_PROTO_MIN: 1, REG_PROTO_MAX: 2, FLAGS: 3 } as const
export const NFTA_FIB = { DREG: 1, RESULT: 2, FLAGS: 3 } as const
export const NFTA_REJECT = { TYPE: 1, ICMP_CODE: 2 } as const
export const NFTA_FWD = { SREG_DEV: 1, SREG_ADDR: 2, NFPROTO: 3 } as const
export const NFTA_TPROXY = { FAMILY: 1, REG_ADDR: 2, REG_PORT: 3 } as const
export const NFTA_OBJ = { TABLE: 1, NAME: 2, TYPE: 3, DATA: 4 } as const
export const NFTA_OBJREF = { IMM_TYPE: 1, IMM_NAME: 2 } as const
export const NFT_OBJECT = { CT_TIMEOUT: 7 } as const
export const NFTA_CT_TIMEOUT = { L3PROTO: 1, L4PROTO: 2, DATA: 3 } as const
export const CTA_TIMEOUT_TCP = { ESTABLISHED: 3, CLOSE_WAIT: 5 } as const
export const CTA_TIMEOUT_UDP = { UNREPLIED: 1, REPLIED: 2 } as const
export const NFTA_HASH = { SREG: 1, DREG: 2, LEN: 3, MODULUS: 4, SEED: 5, OFFSET: 6, TYPE: 7 } as const
export const NFTA_NG = { DREG: 1, MODULUS: 2, TYPE: 3, OFFSET: 4 } as const

export const NFT_PAYLOAD = { LL_HEADER: 0, NETWORK_HEADER: 1, TRANSPORT_HEADER: 2 } as const
export const NFT_CMP = { EQ: 0, NEQ: 1, LT: 2, LTE: 3, GT: 4, GTE: 5 } as const
export const NFT_META = {
  LEN: 0,
  PROTOCOL: 1,
  MARK: 3,
  IIF: 4,
  OIF: 5,
  IIFNAME: 6,
  OIFNAME: 7,
  IIFTYPE: 8,
  NFTRACE: 12,
  NFPROTO: 15,
  L4PROTO: 16,
  PKTTYPE: 19,
  IIFKIND: 26,
} as const
export const NFT_CT = { STATE: 0, DIRECTION: 1, STATUS: 2, MARK: 3, ZONE: 17 } as const
export const NFT_FIB_RESULT = { OIF: 1, OIFNAME: 2, ADDRTYPE: 3 } as const
export const NFTA_FIB_F = { SADDR: 1, DADDR: 2, MARK: 4, IIF: 8, OIF: 16, PRESENT: 32 } as const
export const NFT_REJECT = { ICMP_UNREACH: 0, TCP_RST: 1, ICMPX_UNREACH: 2 } as const
export const NFT_NAT = { SNAT: 0, DNAT: 1 } as const
export const NFT_LOOKUP_F_INV = 1
export const NFT_LIMIT_F_INV = 1

/** linux/netfilter/nf_nat.h */
export const NF_NAT_RANGE = {
  PROTO_SPECIFIED: 2,
  PROTO_RANDOM: 4,
  PERSISTENT: 8,
  PROTO_RANDOM_FULLY: 16,
} as const

/** NF_INET_PRE_ROUTING and so on of linux/netfilter.h; NF_NETDEV_INGRESS. */
export const hookNumbers = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const
export const NF_NETDEV_INGRESS = 0
export const NF_INET_INGRESS = 5
