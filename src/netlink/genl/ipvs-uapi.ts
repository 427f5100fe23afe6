// SPDX-License-Identifier: Apache-2.0
// Constants of linux/ip_vs.h. The kernel's name is group, underscore, member: IPVS_CMD.NEW_SERVICE is
// IPVS_CMD_NEW_SERVICE. test/netlink/uapi.test.ts compares every one with the installed headers.

export const IPVS_GENL_VERSION = 1
/** Bytes of a scheduler's name, NUL included. */
export const IP_VS_SCHEDNAME_MAXLEN = 16

export const IPVS_CMD = {
  NEW_SERVICE: 1,
  SET_SERVICE: 2,
  DEL_SERVICE: 3,
  GET_SERVICE: 4,
  NEW_DEST: 5,
  SET_DEST: 6,
  DEL_DEST: 7,
  GET_DEST: 8,
  SET_CONFIG: 12,
  GET_CONFIG: 13,
} as const

export const IPVS_CMD_ATTR = {
  SERVICE: 1,
  DEST: 2,
  TIMEOUT_TCP: 4,
  TIMEOUT_TCP_FIN: 5,
  TIMEOUT_UDP: 6,
} as const

export const IPVS_SVC_ATTR = {
  AF: 1,
  PROTOCOL: 2,
  ADDR: 3,
  PORT: 4,
  FWMARK: 5,
  SCHED_NAME: 6,
  FLAGS: 7,
  TIMEOUT: 8,
  NETMASK: 9,
  STATS: 10,
  PE_NAME: 11,
  STATS64: 12,
} as const

export const IPVS_DEST_ATTR = {
  ADDR: 1,
  PORT: 2,
  FWD_METHOD: 3,
  WEIGHT: 4,
  U_THRESH: 5,
  L_THRESH: 6,
  ACTIVE_CONNS: 7,
  INACT_CONNS: 8,
  PERSIST_CONNS: 9,
  STATS: 10,
  ADDR_FAMILY: 11,
  STATS64: 12,
} as const

export const IPVS_STATS_ATTR = {
  CONNS: 1,
  INPKTS: 2,
  OUTPKTS: 3,
  INBYTES: 4,
  OUTBYTES: 5,
  CPS: 6,
  INPPS: 7,
  OUTPPS: 8,
  INBPS: 9,
  OUTBPS: 10,
} as const

export const IP_VS_SVC_F = {
  PERSISTENT: 1,
  HASHED: 2,
  ONEPACKET: 4,
  /** What these mean is the scheduler's affair; of sh and mh: fall back, hash the port. */
  SCHED1: 8,
  SCHED2: 0x10,
} as const

export const IP_VS_CONN_F = {
  FWD_MASK: 7,
  MASQ: 0,
  LOCALNODE: 1,
  TUNNEL: 2,
  DROUTE: 3,
  BYPASS: 4,
} as const
