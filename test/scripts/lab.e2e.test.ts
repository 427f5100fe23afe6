// SPDX-License-Identifier: Apache-2.0
// The lab itself, mostly without weft: hosts are real and apart, the underlay is as strict as a cloud's, nothing stays behind.
import { existsSync, mkdirSync, rmdirSync, rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import t from 'tap'
import { Lab } from './lab.ts'

t.setTimeout(600_000)
if (process.getuid?.() !== 0) {
  t.plan(0, 'needs root for namespaces')
  process.exit()
}
const lab = new Lab()
t.teardown(async () => {
  await lab.run('down')
  rmSync(lab.folder, { recursive: true, force: true })
})

t.test('two hosts come up, each with an engine of its own', async t => {
  const up = await lab.run('up', '2', '--no-weft', '--mtu', '1500,1400')
  t.equal(up.code, 0, up.err)
  const status = await lab.status()
  t.match(status.hosts, [
    { name: 'h1', v4: '10.9.0.1', v6: 'fd09::1', mtu: 1500, weftd: 0 },
    { name: 'h2', v4: '10.9.0.2', v6: 'fd09::2', mtu: 1400, weftd: 0 },
  ])
  for (const host of status.hosts) {
    t.ok(host.dockerd > 0, 'dockerd has a pid')
    t.ok(existsSync(host.sockets.docker), 'its socket is reachable from outside')
    const said = await lab.run('docker', host.name, 'run', '--rm', 'weft/busybox', 'echo', 'hello')
    t.equal(said.out, 'hello\n', said.err)
    t.equal((await lab.run('exec', host.name, 'hostname')).out, `${host.name}\n`)
  }
  await lab.run('docker', 'h1', 'create', '--name', 'only-here', 'busybox')
  t.match((await lab.run('docker', 'h1', 'ps', '-a')).out, /only-here/)
  t.notMatch((await lab.run('docker', 'h2', 'ps', '-a')).out, /only-here/)
})

t.test('the underlay connects hosts, router, client and store in both families', async t => {
  const pairs = [
    ['h1', '10.9.0.2'],
    ['h1', 'fd09::2'],
    ['client', '10.9.0.1'],
    ['client', 'fd09::2'],
    ['h2', '192.0.2.10'],
    ['h2', '2001:db8::10'],
    ['store', '10.9.0.1'],
  ] as const
  for (const [who, address] of pairs) {
    const ping = await lab.run('exec', who, 'busybox', 'ping', '-c', '1', '-W', '5', address)
    t.equal(ping.code, 0, `${who} reaches ${address}: ${ping.out}`)
  }
  const put = await lab.run(
    'exec',
    'h1',
    'env',
    'ETCDCTL_API=3',
    'etcdctl',
    '--endpoints',
    'http://10.9.0.241:2379',
    'put',
    'a',
    'b',
  )
  t.equal(put.code, 0, put.err)
  t.equal((await lab.run('exec', 'store', 'etcdctl', 'get', 'a')).out, 'a\nb\n')
})

t.test('the switch drops what a host sends under an address of another', async t => {
  await lab.run('exec', 'h1', 'ip', 'address', 'add', '10.9.0.77/24', 'dev', 'eth0')
  const ping = await lab.run('exec', 'h1', 'busybox', 'ping', '-c', '1', '-W', '1', '-I', '10.9.0.77', '10.9.0.2')
  t.equal(ping.code, 1)
  t.match((await lab.run('exec', 'router', 'nft', 'list', 'counters')).out, /packets [1-9]/)
  await lab.run('exec', 'h1', 'ip', 'address', 'del', '10.9.0.77/24', 'dev', 'eth0')
})

t.test('exit codes, standard input and directory of exec pass through', async t => {
  t.equal((await lab.run('exec', 'h1', 'sh', '-c', 'exit 7')).code, 7)
  t.equal((await lab.run('docker', 'h1', 'run', '--rm', 'busybox', 'sh', '-c', 'exit 9')).code, 9)
  t.equal((await lab.run('exec', 'h1', 'pwd')).out, (await lab.run('exec', 'client', 'pwd')).out)
})

t.test('daemons can be killed, stopped and started again', async t => {
  const before = await lab.status()
  t.equal((await lab.run('kill', 'h1', 'dockerd')).code, 0)
  t.equal((await lab.status()).hosts[0]?.dockerd, 0)
  t.equal((await lab.run('start', 'h1', 'dockerd')).code, 0)
  t.not((await lab.status()).hosts[0]?.dockerd, before.hosts[0]?.dockerd)
  t.match((await lab.run('docker', 'h1', 'ps', '-a')).out, /only-here/, 'its containers are still known')
  t.equal((await lab.run('stop', 'store', 'etcd')).code, 0)
  t.equal((await lab.status()).members[0]?.pid, 0)
  t.equal((await lab.run('start', 'store', 'etcd')).code, 0)
  t.equal((await lab.run('exec', 'store', 'etcdctl', 'get', 'a')).out, 'a\nb\n')
  t.match((await lab.run('logs', 'h1', 'dockerd')).out, /API listen/)
})

t.test('a host reboots and keeps its disk', async t => {
  await lab.run(
    'docker',
    'h1',
    'run',
    '-d',
    '--name',
    'frozen',
    'busybox',
    'sh',
    '-c',
    'while sleep 0.1; do echo; done',
  )
  t.equal((await lab.run('docker', 'h1', 'pause', 'frozen')).code, 0)
  const said = async () => (await lab.run('docker', 'h1', 'logs', 'frozen')).out
  const before = await said()
  const reboot = await lab.run('reboot', 'h2')
  t.equal(reboot.code, 0, reboot.err)
  t.equal(await said(), before, 'what is paused elsewhere stays so')
  t.equal((await lab.run('docker', 'h2', 'run', '--rm', 'busybox', 'true')).code, 0)
  t.equal((await lab.run('exec', 'h1', 'busybox', 'ping', '-c', '1', '-W', '5', '10.9.0.2')).code, 0)
})

t.test('down leaves nothing, containers included', async t => {
  // of a lab whose name begins as this one's
  const freezer = '/sys/fs/cgroup/freezer'
  const other = `${existsSync(freezer) ? freezer : '/sys/fs/cgroup'}/weft-lab-${lab.name}x`
  mkdirSync(other)
  t.teardown(() => rmdirSync(other))
  const namespaces = await lab.pidNamespaces()
  t.not(lab.leftovers(namespaces).length, 0, 'there is something to look for')
  const down = await lab.run('down')
  t.equal(down.code, 0, down.err)
  t.same(lab.leftovers(namespaces), [])
  t.ok(existsSync(other), 'nothing of another lab')
})

for (const [line, ...options] of [
  [/underlay/, '--no-weft'],
  [/etcd answers/, '--no-weft'],
  [/weftd ready/],
  [/dockerd ready/, '--no-weft'],
] as const) {
  t.test(`killed while coming up, after ${line}: up works again, down leaves nothing`, async t => {
    const child = lab.start('up', '2', ...options)
    for await (const said of createInterface({ input: child.stderr! })) if (line.test(said)) break
    child.kill('SIGKILL')
    const up = await lab.run('up', '1', '--no-weft')
    t.equal(up.code, 0, up.err)
    t.equal((await lab.status()).hosts.length, 1)
    const namespaces = await lab.pidNamespaces()
    await lab.run('down')
    t.same(lab.leftovers(namespaces), [])
  })
}

t.test('mistakes are answered with what to do', async t => {
  t.match(await lab.run('up', 'many'), { code: 2, err: /1 to 99 hosts/ })
  t.match(await lab.run('exec', 'h1', 'true'), { code: 1, err: /no lab named .* is up/ })
  t.match(await lab.run('up', '--frobnicate'), { code: 2, err: /unknown option --frobnicate/ })
  t.match(await lab.run('--help'), { code: 0, out: /usage: scripts\/lab/ })
  t.same(lab.leftovers(), [])
})
