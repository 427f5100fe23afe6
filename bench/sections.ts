// SPDX-License-Identifier: Apache-2.0
// The table of all sections. One is loaded only in the process that runs it.
import type { Run } from './frame/section.ts'

interface Section {
  readonly about: string
  load(): Promise<{ readonly run: Run }>
}

export const sections: Readonly<Record<string, Section>> = {
  netlink: {
    about: 'tables and one endpoint written to the kernel, against bridge, nft and ip',
    load: () => import('./netlink/netlink.ts'),
  },
  ipam: {
    about: 'addresses a second, of one host and of three on one pool; conflicts',
    load: () => import('./ipam/ipam.ts'),
  },
  store: {
    about: "one change until another host's mirror and kernel have it, and changes a second, against etcdctl watch",
    load: () => import('./store/store.ts'),
  },
  scale: {
    about: 'one agent in a cluster of 1,000 to 50,000 endpoints: first sync, memory, one change, restart',
    load: () => import('./scale/scale.ts'),
  },
  datapath: {
    about:
      "containers on two hosts: streams, datagrams, ping-pong, against Docker's overlay, a VXLAN by hand, the underlay",
    load: () => import('./datapath/datapath.ts'),
  },
  start: {
    about:
      "docker run, network connect, network create and 100 containers at once, against Docker's overlay and bridge",
    load: () => import('./start/start.ts'),
  },
  answer: {
    about: "from docker run on one host to the first answered packet and name on the other, against Docker's overlay",
    load: () => import('./answer/answer.ts'),
  },
  mesh: {
    about: "a published port asked from outside, against Docker's swarm ingress (where the kernel has IPVS) and -p",
    load: () => import('./mesh/mesh.ts'),
  },
}
