// SPDX-License-Identifier: Apache-2.0
// Every constant of ours against the installed kernel headers, by way of a C program made here.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import * as uapi from '../../../src/netlink/nft/uapi.ts'

const headers = [
  'linux/netfilter.h',
  'linux/netfilter/nfnetlink.h',
  'linux/netfilter/nf_tables.h',
  'linux/netfilter/nf_tables_compat.h',
  'linux/netfilter/nf_nat.h',
  'linux/netfilter/nfnetlink_cttimeout.h',
]

/** Where the kernel's name is not ours and the member's. */
const special: Readonly<Record<string, string>> = {
  hookNumbers_prerouting: 'NF_INET_PRE_ROUTING',
  hookNumbers_input: 'NF_INET_LOCAL_IN',
  hookNumbers_forward: 'NF_INET_FORWARD',
  hookNumbers_output: 'NF_INET_LOCAL_OUT',
  hookNumbers_postrouting: 'NF_INET_POST_ROUTING',
}

t.test('constants are those of the kernel', async t => {
  const ours = Object.entries(uapi).flatMap(([name, value]): [string, number][] => {
    if (typeof value === 'number') return [[name, value]]
    return Object.entries(value).map(([member, n]) => {
      const full = `${name}_${member}`
      return [special[full] ?? full, n as number]
    })
  })
  const dir = mkdtempSync(join(tmpdir(), 'wft-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const source = [
    ...['stdio.h', 'netinet/in.h', 'linux/netlink.h', ...headers].map(header => `#include <${header}>`),
    'int main(void) {',
    ...ours.map(([name]) => `  printf("${name} %lld\\n", (long long)${name});`),
    '  return 0;',
    '}',
  ]
  writeFileSync(join(dir, 'uapi.c'), source.join('\n'))
  execFileSync('gcc', ['-w', '-o', join(dir, 'uapi'), join(dir, 'uapi.c')])
  const printed = execFileSync(join(dir, 'uapi'), { encoding: 'utf8' }).trim().split('\n')
  t.ok(ours.length > 200, `${ours.length} constants`)
  t.strictSame(
    printed,
    ours.map(([name, value]) => `${name} ${value}`),
  )
})
