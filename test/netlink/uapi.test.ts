// SPDX-License-Identifier: Apache-2.0
// Every constant of ours against the installed kernel headers, by way of a C program made here.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import * as ct from '../../src/netlink/ct/uapi.ts'
import { genlConstants } from '../../src/netlink/genl/ctrl.ts'
import * as ipvs from '../../src/netlink/genl/ipvs-uapi.ts'
import * as rtnl from '../../src/netlink/rtnl/uapi.ts'
import * as core from '../../src/netlink/uapi.ts'

const headers = [
  'netinet/in.h',
  ...['sys/socket.h', 'linux/if.h', 'linux/netlink.h', 'linux/rtnetlink.h', 'linux/genetlink.h', 'linux/if_link.h'],
  ...[
    'linux/if_bridge.h',
    'linux/veth.h',
    'linux/neighbour.h',
    'linux/nexthop.h',
    'linux/if_addr.h',
    'linux/fib_rules.h',
    'linux/netconf.h',
    'linux/ip_vs.h',
    'linux/netfilter/nfnetlink_conntrack.h',
    'linux/netfilter/nf_conntrack_common.h',
    'linux/netfilter/nf_conntrack_tcp.h',
  ],
]

/** IFLA_VXLAN.ID is IFLA_VXLAN_ID. */
const flatten = (module: object): [string, number][] =>
  Object.entries(module).flatMap(([name, value]) => {
    if (typeof value === 'number') return [[name, value]]
    if (name.endsWith('_NEWER')) return [] // newer than Debian 12's headers
    return Object.entries(value as Record<string, number>).map(([member, n]): [string, number] => [
      `${name}_${member}`,
      n,
    ])
  })

t.test('constants are those of the kernel', async t => {
  const ours = [...flatten(core), ...flatten(rtnl), ...flatten(ipvs), ...flatten(ct), ...Object.entries(genlConstants)]
  const dir = mkdtempSync(join(tmpdir(), 'wft-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const source = [
    ...['stdio.h', ...headers].map(header => `#include <${header}>`),
    'int main(void) {',
    ...ours.map(([name]) => `  printf("${name} %lld\\n", (long long)${name});`),
    '  return 0;',
    '}',
  ]
  writeFileSync(join(dir, 'uapi.c'), source.join('\n'))
  execFileSync('gcc', ['-w', '-o', join(dir, 'uapi'), join(dir, 'uapi.c')])
  const printed = execFileSync(join(dir, 'uapi'), { encoding: 'utf8' }).trim().split('\n')
  t.ok(ours.length > 250, `${ours.length} constants`)
  t.strictSame(
    printed,
    ours.map(([name, value]) => `${name} ${value}`),
  )
})
