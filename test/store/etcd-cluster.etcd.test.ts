// SPDX-License-Identifier: Apache-2.0
// Three members with client certificates: a leader that dies, a member that is cut off from the others, and files that
// do not fit.
import { copyFileSync, rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { describe } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { openEtcdStore } from '../../src/store/etcd.ts'
import { readTls, type TlsFiles } from '../../src/store/etcd-tls.ts'
import type { Write } from '../../src/store/store.ts'
import { converges, follow } from '../suites/store.ts'
import { makeAuthority } from './certificates.ts'
import { fastClock } from './clock.ts'
import { startCluster, startEtcd } from './etcd-server.ts'

const put = (key: string, value = ''): Write => ({ kind: 'put', key, value })
const dir = await mkdtemp(join(tmpdir(), 'weft-tls-'))
const authority = makeAuthority(dir, 'ca')
const tls = authority.issue('node')
const cluster = await startCluster(tls)
t.teardown(async () => {
  await cluster.close()
  await rm(dir, { recursive: true })
})
let prefixes = 0
const open = (members: readonly number[], prefix = `/t${prefixes++}/`, files: TlsFiles = tls, clock = systemClock) =>
  openEtcdStore({
    endpoints: members.map(member => cluster.members[member]!.endpoint),
    prefix,
    tls: files,
    log: silentLog,
    clock,
  })

t.test('the leader is killed under load: what was answered is there, the watch is complete', async t => {
  const store = await open([0, 1, 2])
  t.teardown(() => store.close())
  const watch = follow(store, '')
  t.ok(await watch.until(() => watch.events.length > 0))
  const answered: string[] = []
  let stop = false
  const writing = Array.from({ length: 4 }, async (_, worker) => {
    for (let i = 0; !stop; i++) {
      const key = `w${worker}/${i}`
      await store.commit([], [put(key)]).then(
        () => answered.push(key),
        error => t.equal(error.code, 'STORE_UNAVAILABLE'),
      )
      await sleep(2)
    }
  })
  await sleep(300)
  const leader = await cluster.leader()
  await cluster.members[leader]!.kill()
  const before = answered.length
  const since = Date.now()
  while (answered.length < before + 20 && Date.now() - since < 10_000) await sleep(20)
  t.comment(`commits go on after ${Date.now() - since} ms`)
  stop = true
  await Promise.all(writing)
  const keys = new Set((await store.list('')).entries.map(entry => entry.key))
  t.ok(
    answered.length > before && answered.every(key => keys.has(key)),
    `${answered.length} answered commits are there`,
  )
  await converges(t, watch, store, '')
  await watch.close()
  await cluster.members[leader]!.start()
})

t.test('a member that lost the others: calls do not answer, the watch moves on', async t => {
  const prefix = `/t${prefixes++}/`
  const alone = ((await cluster.leader()) + 1) % 3
  const others = [0, 1, 2].filter(member => member !== alone)
  const clock = fastClock(2)
  const stuck = await open([alone], prefix, tls, clock)
  const both = await open([alone, others[0]!], prefix, tls, clock)
  const healthy = await open(others, prefix)
  const [only, moving] = [follow(stuck, ''), follow(both, '')]
  t.teardown(async () => {
    await cluster.isolate(undefined)
    await only.close()
    await moving.close()
    for (const store of [stuck, both, healthy]) await store.close()
  })
  for (const watch of [only, moving]) t.ok(await watch.until(() => watch.events.length > 0))
  await cluster.isolate(alone)
  await t.rejects(stuck.commit([], [put('never')], { timeoutMs: 3000 }), { code: 'STORE_UNAVAILABLE' })
  await t.rejects(stuck.get('a', { timeoutMs: 3000 }), { code: 'STORE_UNAVAILABLE' })
  const since = Date.now()
  for (let i = 0; i < 20; i++) await healthy.commit([], [put(`k${i}`)])
  t.ok(await moving.until(() => moving.state.size >= 20, 15_000), 'complete from the other member')
  t.comment(`after ${(Date.now() - since) * 2} ms of its clock`)
  t.ok(await only.until(() => only.events.at(-1)?.kind === 'unavailable', 15_000), 'the one without another says so')
  await cluster.isolate(undefined)
  t.ok(await only.until(() => only.events.at(-1)?.kind === 'available', 15_000))
  for (const watch of [only, moving]) await converges(t, watch, healthy, '')
})

t.test('files that cannot be used are named at once', async t => {
  const other = makeAuthority(dir, 'other').issue('stranger')
  const refuses = (files: TlsFiles, message: RegExp) =>
    t.rejects(open([0], undefined, files), { code: 'INVALID', message })
  await refuses({ ...tls, ca: '/nonexistent/ca.pem' }, /--etcd-ca \/nonexistent\/ca.pem cannot be read/)
  await refuses({ ...tls, cert: tls.key }, /--etcd-cert .*ca-node.key is no usable certificate/)
  await refuses({ ...tls, key: other.key }, /--etcd-key .*other-stranger.key is no usable key/)
  await refuses({ ...tls, key: tls.cert }, /--etcd-key .*ca-node.pem is no usable key/)
  const expired = authority.issue('old', -1)
  await refuses(expired, /--etcd-cert .*ca-old.pem is no usable certificate/)
  t.throws(() => readTls(tls, Date.now() - 7 * 86_400_000), { message: /--etcd-ca .* is no usable certificate/ })
})

t.test('files that the other side does not take are named when it says so', async t => {
  const other = makeAuthority(dir, 'foreign')
  const stranger = other.issue('stranger')
  const says = async (files: TlsFiles, endpoint?: string): Promise<string> => {
    const store = await openEtcdStore({
      endpoints: [endpoint ?? cluster.members[0]!.endpoint],
      prefix: '/t/',
      tls: files,
      log: silentLog,
      clock: systemClock,
    })
    const error = await store.get('a', { timeoutMs: 1500 }).then(
      () => new Error('answered'),
      error => error as Error,
    )
    t.match(error, { code: 'STORE_UNAVAILABLE' })
    await store.close()
    return describe(error)
  }
  t.match(await says({ ...tls, ca: other.ca }), /--etcd-ca .*foreign.pem did not sign the server's certificate/)
  t.match(await says({ ...stranger, ca: tls.ca }), /refuses --etcd-cert .*foreign-stranger.pem/)
  const name = cluster.members[0]!.endpoint.replace('127.0.0.1', '127.0.0.2')
  t.match(await says(tls, name), /ECONNREFUSED|another name/)
})

t.test('files that are replaced while it runs are taken with the next connection', async t => {
  const files = { ca: join(dir, 'now.ca'), cert: join(dir, 'now.pem'), key: join(dir, 'now.key') }
  const take = (from: TlsFiles): void => {
    for (const part of ['ca', 'cert', 'key'] as const) copyFileSync(from[part], files[part])
  }
  take(tls)
  const alone = await startEtcd(files)
  const taken: string[] = []
  const log = { ...silentLog, info: (_: object, message: string) => void taken.push(message) }
  const store = await openEtcdStore({ endpoints: [alone.endpoint], prefix: '/t/', tls: files, log, clock: systemClock })
  const watch = follow(store, '')
  const lease = await store.lease(5000)
  t.teardown(async () => {
    await watch.close()
    await store.close()
    await alone.close()
  })
  await store.commit([], [put('a')])
  t.ok(await watch.until(() => watch.state.has('a')))
  // another authority on both sides: who has the files of before is refused, and refuses
  take(makeAuthority(dir, 'next').issue('node'))
  await store.commit([], [put('b')])
  t.equal(taken.filter(message => /replaced/.test(message)).length, 0, 'a connection that lives is kept')
  await alone.kill()
  await alone.start()
  for (const key of ['c', 'd']) await store.commit([], [put(key)])
  t.ok(await watch.until(() => watch.state.has('d')), 'the watch goes on')
  t.equal(taken.filter(message => /replaced/.test(message)).length, 1)
  await sleep(2000)
  t.ok(lease.expires > systemClock.monotonic() + 2000, 'the lease is renewed')
  await converges(t, watch, store, '')
  // half replaced: the key does not belong to the certificate
  copyFileSync(makeAuthority(dir, 'last').issue('node').key, files.key)
  copyFileSync(tls.ca, files.ca)
  await store.commit([], [put('e')])
  await alone.kill()
  t.ok(await watch.until(() => watch.events.at(-1)?.kind === 'unavailable'), 'whose files are read, and left')
  take(tls)
  await alone.start()
  await store.commit([], [put('f')])
  t.equal(taken.filter(message => /replaced/.test(message)).length, 2)
})

t.test('a certificate that is replaced by a bad one does not disturb an open store', async t => {
  const own = { ...tls, cert: join(dir, 'own.pem') }
  copyFileSync(tls.cert, own.cert)
  const store = await open([0], undefined, own)
  rmSync(own.cert)
  await store.commit([], [put('a')])
  t.ok(await store.get('a'))
  await store.close()
})
