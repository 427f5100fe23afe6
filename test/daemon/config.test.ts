// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../src/daemon/config.ts'

const dir = mkdtempSync(join(tmpdir(), 'weft-config-'))
t.teardown(() => rmSync(dir, { recursive: true }))
const file = (text: string): string[] => {
  const path = join(dir, 'weft.yaml')
  writeFileSync(path, text)
  return ['--config', path]
}

t.test('the resolvers: one address of each family', async t => {
  const [four, six] = ['169.254.77.53', 'fd69:7765:6674:ffff::53']
  const of = (...args: string[]) => parseConfig(args).resolvers
  t.same(of(), [four, six])
  t.same(of('--resolver', '10.0.0.53'), ['10.0.0.53', six], 'of the family that is not given, the default')
  t.same(of('--resolver', 'FD00:0::53'), [four, 'fd00::53'])
  t.same(of('--resolver', 'fd00::53, 10.0.0.53'), ['10.0.0.53', 'fd00::53'])
  t.same(of(...file('resolver: [10.0.0.53, fd00::53]')), ['10.0.0.53', 'fd00::53'])
  const refused = (text: string, message: string | RegExp) =>
    t.throws(() => of('--resolver', text), { code: 'INVALID', message })
  refused('here', /--resolver "here"/)
  refused('', /--resolver ""/)
  refused('10.0.0.53,10.0.0.54', '--resolver 10.0.0.53,10.0.0.54: give at most one address of each family')
  for (const [text, what] of [
    ['127.0.0.11', '127.0.0.0/8 (loopback)'],
    ['::1', '::/96 (unspecified, loopback)'],
    ['fe80::53', 'fe80::/10 (link-local)'],
    ['ff02::fb', 'ff00::/8 (multicast)'],
  ] as const)
    refused(text, `--resolver ${text} is in ${what}: give one that containers can have a route to`)
})

t.test('the pools: prefixes that networks can have', async t => {
  t.same(parseConfig(['--pools', '10.0.0.0/8, FD00:1::/48,']).pools, ['10.0.0.0/8', 'fd00:1::/48'])
  for (const [text, why] of [
    ['127.0.0.0/8', /^--pools 127.0.0.0\/8 overlaps 127.0.0.0\/8 \(loopback\)/],
    ['10.0.0.0/8,224.0.0.0/4', /^--pools 224.0.0.0\/4 overlaps .*multicast/],
    ['0.0.0.0/0', /^--pools 0.0.0.0\/0 overlaps/],
    ['169.254.0.0/16', /^--pools 169.254.0.0\/16 overlaps .*weft's own/],
    ['10.0.0.0/32', '--pools 10.0.0.0/32 has no room for containers: the prefix length is at most 30'],
    ['fd00::/127', /at most 126$/],
    ['10.0.0.1/8', /--pools/],
    ['ten', /--pools/],
  ] as const)
    t.throws(() => parseConfig(['--pools', text]), { code: 'INVALID', message: why }, text)
})

t.test('what the kernel and etcd have no room for is said with the flag', async t => {
  const long = `/run/${'x'.repeat(103)}`
  for (const flag of ['--plugin-socket', '--api-socket'])
    t.throws(() => parseConfig([flag, long]), {
      message: `${flag} ${long}: the path of a socket has at most 107 bytes`,
    })
  t.equal(parseConfig(['--api-socket', long.slice(0, -1)]).apiSocket.length, 107)
  t.throws(() => parseConfig(['--store', 'etcd://a:99999']), { code: 'INVALID', message: /--store a:99999: .*65535/ })
  t.throws(() => parseConfig(['--store', 'etcd://a']), { message: '--store: a is not HOST:PORT' })
})

t.test('certificates for etcd without etcd', async t => {
  const tls = ['--etcd-ca', 'a', '--etcd-cert', 'b', '--etcd-key', 'c']
  t.throws(() => parseConfig(tls), { code: 'INVALID', message: /are for --store etcd:.*, which is not given/ })
  t.match(parseConfig([...tls, '--store', 'etcd://h:1']).store, { kind: 'etcd', endpoints: ['https://h:1'] })
})

t.test('a wrong word in a file is answered with the flag and the right ones', async t => {
  t.equal(parseConfig(file('log-level: warn')).logLevel, 'warn')
  t.throws(() => parseConfig(file('log-level: shout')), {
    code: 'INVALID',
    message: '--log-level shout: one of debug, info, warn, error',
  })
})
