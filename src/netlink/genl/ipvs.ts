// SPDX-License-Identifier: Apache-2.0
// IPVS (`ipvsadm`), the kernel's balancer: virtual services, and the destinations behind each. The layout is that of
// linux/ip_vs.h; requests go over a socket of NETLINK_GENERIC in the namespace that balances, one or many in a batch.
//
// IPVS says nothing but a number: no text with an error (so encoding refuses what would only be EINVAL, or would be
// cut to fit), no notification of a change, no mark on a dump that others changed meanwhile. Dumps count positions:
// a service removed by somebody else during a dump hides another one, so never act on absence after one look.
import { NotSupportedError } from '../../base/errors.ts'
import { type AttributeNames, type NameTable, nameTable } from '../explain.ts'
import { invalid, type Writer, within } from '../message.ts'
import type { Netlink, Request } from '../socket.ts'
import { ipFamily } from '../text.ts'
import { AF_INET6 } from '../uapi.ts'
import { encodeGenl, type GenlFamily, genlHeaderLength, getFamily } from './ctrl.ts'
import {
  type DestinationKey,
  destinationText,
  forwardingMethods,
  type NewDestination,
  type NewVirtualService,
  type ServiceOptions,
  serviceFamily,
  serviceText,
  type Timeouts,
  type VirtualServiceKey,
} from './ipvs-types.ts'
import {
  IP_VS_SCHEDNAME_MAXLEN,
  IP_VS_SVC_F,
  IPVS_CMD,
  IPVS_CMD_ATTR,
  IPVS_DEST_ATTR,
  IPVS_GENL_VERSION,
  IPVS_SVC_ATTR,
} from './ipvs-uapi.ts'

/**
 * The family's number, for every request below; ask again after ENOENT for a service that should be there (a module
 * loaded anew has another number). The kernel loads ip_vs by itself at this question, by its alias
 * net-pf-16-proto-16-family-IPVS, and ip_vs_<scheduler> with the first service that wants it, from whatever namespace:
 * modprobe runs in the host's. Rejects with NotSupportedError where it has no such module, or no modprobe.
 */
export const findIpvs = async (netlink: Netlink): Promise<GenlFamily> => {
  const family = await getFamily(netlink, 'IPVS')
  if (family === undefined)
    throw new NotSupportedError('ip_vs', 'load the module: modprobe ip_vs, and list it in /etc/modules-load.d')
  return family
}

const prefixed = (prefix: string, group: Readonly<Record<string, number>>, inside: Record<string, NameTable> = {}) =>
  nameTable(
    Object.fromEntries(Object.entries(group).map(([name, value]) => [`${prefix}_${name}`, value])),
    Object.fromEntries(Object.entries(inside).map(([name, table]) => [`${prefix}_${name}`, table])),
  )

const ipvsNames: AttributeNames = {
  header: genlHeaderLength,
  table: prefixed('IPVS_CMD_ATTR', IPVS_CMD_ATTR, {
    SERVICE: prefixed('IPVS_SVC_ATTR', IPVS_SVC_ATTR),
    DEST: prefixed('IPVS_DEST_ATTR', IPVS_DEST_ATTR),
  }),
}

const encodeKey = (w: Writer, key: VirtualServiceKey): void => {
  w.attrU16(IPVS_SVC_ATTR.AF, serviceFamily(key))
  if (key.kind === 'mark') {
    // 0 would be taken for a service at an address, without one
    w.attrU32(IPVS_SVC_ATTR.FWMARK, within('mark', key.mark, 1, 0xffff_ffff))
  } else {
    w.attrU16(IPVS_SVC_ATTR.PROTOCOL, within('protocol', key.protocol, 0, 255))
    w.attrIp(IPVS_SVC_ATTR.ADDR, key.address)
    w.attrBe16(IPVS_SVC_ATTR.PORT, within('port', key.port, 0, 65_535))
  }
}

const serviceFlags = (service: ServiceOptions): number =>
  (service.persistence ? IP_VS_SVC_F.PERSISTENT : 0) |
  (service.onePacket ? IP_VS_SVC_F.ONEPACKET : 0) |
  (service.hashFallback ? IP_VS_SVC_F.SCHED1 : 0) |
  (service.hashPort ? IP_VS_SVC_F.SCHED2 : 0)

const encodeService = (w: Writer, service: NewVirtualService): void => {
  const { persistence } = service
  const family = serviceFamily(service)
  encodeKey(w, service)
  w.attrString(IPVS_SVC_ATTR.SCHED_NAME, service.scheduler, IP_VS_SCHEDNAME_MAXLEN)
  w.attrHeader(IPVS_SVC_ATTR.FLAGS, 8)
  // Every flag is ours to say, HASHED too: on a change the kernel puts it back, on a new service it must not be set.
  w.u32(serviceFlags(service))
  w.u32(0xffff_ffff)
  w.attrU32(
    IPVS_SVC_ATTR.TIMEOUT,
    persistence ? within('persistence timeout', persistence.timeoutSeconds, 1, 4_294_967) : 0,
  )
  const bits = family === AF_INET6 ? 128 : 32
  const prefix = within('prefix length', persistence?.prefixLength ?? bits, family === AF_INET6 ? 1 : 0, bits)
  if (family === AF_INET6) w.attrU32(IPVS_SVC_ATTR.NETMASK, prefix)
  else w.attrBe32(IPVS_SVC_ATTR.NETMASK, prefix === 0 ? 0 : (-1 << (32 - prefix)) >>> 0)
}

const encodeDestinationKey = (w: Writer, key: DestinationKey): void => {
  w.attrU16(IPVS_DEST_ATTR.ADDR_FAMILY, ipFamily(key.address))
  w.attrIp(IPVS_DEST_ATTR.ADDR, key.address)
  w.attrBe16(IPVS_DEST_ATTR.PORT, within('port', key.port, 0, 65_535))
}

const encodeDestination = (w: Writer, service: VirtualServiceKey, d: NewDestination): void => {
  const upper = within('upper threshold', d.upperThreshold ?? 0, 0, 0xffff_ffff)
  if (d.forwarding !== 'tunnel' && ipFamily(d.address) !== serviceFamily(service))
    throw invalid(`${d.address} is of another family than the service, which only a tunnel can reach`)
  encodeDestinationKey(w, d)
  w.attrU32(IPVS_DEST_ATTR.FWD_METHOD, forwardingMethods[d.forwarding])
  w.attrU32(IPVS_DEST_ATTR.WEIGHT, within('weight', d.weight, 0, 0x7fff_ffff))
  w.attrU32(IPVS_DEST_ATTR.U_THRESH, upper)
  w.attrU32(IPVS_DEST_ATTR.L_THRESH, within('lower threshold', d.lowerThreshold ?? 0, 0, upper))
}

// The text is made only if it is asked for.
const request = (
  family: GenlFamily,
  command: number,
  op: () => string,
  content: (w: Writer) => void = () => {},
): Request => ({
  get op() {
    return op()
  },
  type: family.id,
  flags: 0,
  names: ipvsNames,
  encode(w) {
    encodeGenl(w, command, IPVS_GENL_VERSION)
    content(w)
  },
})

const serviceRequest = (
  family: GenlFamily,
  command: number,
  verb: string,
  key: VirtualServiceKey,
  content: (w: Writer) => void,
): Request =>
  request(
    family,
    command,
    () => `${verb} virtual service ${serviceText(key)}`,
    w => w.nest(IPVS_CMD_ATTR.SERVICE, () => content(w)),
  )

/** `ipvsadm -A -t ADDRESS:PORT -s SCHEDULER ...`; EEXIST, and ENOENT for an unknown scheduler. */
export const addService = (family: GenlFamily, service: NewVirtualService): Request =>
  serviceRequest(family, IPVS_CMD.NEW_SERVICE, 'add', service, w => encodeService(w, service))

/** `ipvsadm -E ...`: all options anew, destinations and connections stay; ESRCH, and ENOENT for an unknown scheduler. */
export const setService = (family: GenlFamily, service: NewVirtualService): Request =>
  serviceRequest(family, IPVS_CMD.SET_SERVICE, 'set', service, w => encodeService(w, service))

/** `ipvsadm -D -t ADDRESS:PORT`, its destinations with it; ESRCH. */
export const removeService = (family: GenlFamily, key: VirtualServiceKey): Request =>
  serviceRequest(family, IPVS_CMD.DEL_SERVICE, 'remove', key, w => encodeKey(w, key))

/** `ipvsadm -Ln -t ADDRESS:PORT`, for run and decodeService; ESRCH. */
export const getService = (family: GenlFamily, key: VirtualServiceKey): Request =>
  serviceRequest(family, IPVS_CMD.GET_SERVICE, 'get', key, w => encodeKey(w, key))

/** `ipvsadm -Sn`, for dump and decodeService. */
export const listServices = (family: GenlFamily): Request =>
  request(family, IPVS_CMD.GET_SERVICE, () => 'list virtual services')

const destinationRequest = (
  family: GenlFamily,
  command: number,
  verb: string,
  service: VirtualServiceKey,
  key: DestinationKey,
  content: (w: Writer) => void,
): Request =>
  request(
    family,
    command,
    () => `${verb} destination ${destinationText(key)} of virtual service ${serviceText(service)}`,
    w => {
      w.nest(IPVS_CMD_ATTR.SERVICE, () => encodeKey(w, service))
      w.nest(IPVS_CMD_ATTR.DEST, () => content(w))
    },
  )

/**
 * `ipvsadm -a -t ADDRESS:PORT -r ADDRESS:PORT -m|-i|-g -w WEIGHT`; EEXIST, ESRCH without the service, EINVAL for an
 * address that cannot be a host's: multicast, broadcast, link-local IPv6.
 */
export const addDestination = (family: GenlFamily, service: VirtualServiceKey, d: NewDestination): Request =>
  destinationRequest(family, IPVS_CMD.NEW_DEST, 'add', service, d, w => encodeDestination(w, service, d))

/** `ipvsadm -e ...`: connections stay, also with weight 0; ENOENT, ESRCH without the service. */
export const setDestination = (family: GenlFamily, service: VirtualServiceKey, d: NewDestination): Request =>
  destinationRequest(family, IPVS_CMD.SET_DEST, 'set', service, d, w => encodeDestination(w, service, d))

/**
 * `ipvsadm -d -t ADDRESS:PORT -r ADDRESS:PORT`; ENOENT, ESRCH without the service. What becomes of its connections is
 * the sysctl net/ipv4/vs/expire_nodest_conn's: with 0 their packets are dropped until they time out, with 1 the next
 * packet ends them.
 */
export const removeDestination = (family: GenlFamily, service: VirtualServiceKey, key: DestinationKey): Request =>
  destinationRequest(family, IPVS_CMD.DEL_DEST, 'remove', service, key, w => encodeDestinationKey(w, key))

/** Destinations of one service, for dump and decodeDestination. None, and no error, of a service that is not there. */
export const listDestinations = (family: GenlFamily, service: VirtualServiceKey): Request =>
  request(
    family,
    IPVS_CMD.GET_DEST,
    () => `list destinations of virtual service ${serviceText(service)}`,
    w => w.nest(IPVS_CMD_ATTR.SERVICE, () => encodeKey(w, service)),
  )

/** `ipvsadm --set TCP TCPFIN UDP`: those given, from 1 second on; EINVAL above 2^31 of the kernel's ticks. */
export const setTimeouts = (family: GenlFamily, timeouts: Partial<Timeouts>): Request =>
  request(
    family,
    IPVS_CMD.SET_CONFIG,
    () => 'set ipvs timeouts',
    w => {
      // 0 is what the kernel takes for "leave it"
      const attr = (type: number, seconds: number | undefined): void => {
        if (seconds !== undefined) w.attrU32(type, within('timeout', seconds, 1, 0x7fff_ffff))
      }
      attr(IPVS_CMD_ATTR.TIMEOUT_TCP, timeouts.tcpSeconds)
      attr(IPVS_CMD_ATTR.TIMEOUT_TCP_FIN, timeouts.tcpFinSeconds)
      attr(IPVS_CMD_ATTR.TIMEOUT_UDP, timeouts.udpSeconds)
    },
  )

/** `ipvsadm -Ln --timeout`, for run and decodeTimeouts. */
export const getTimeouts = (family: GenlFamily): Request =>
  request(family, IPVS_CMD.GET_CONFIG, () => 'get ipvs timeouts')
