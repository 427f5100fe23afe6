// SPDX-License-Identifier: Apache-2.0
// A host moves from its embedded store to etcd: export, start with etcd, import; containers talk all the while.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { openAgreement } from './agree.ts'
import { idle, openLab } from './lab.ts'
import { startMonitors, startPing } from './witness.ts'

// the last flag counts: etcd runs, and nobody uses it yet
const lab = await openLab('move', 1, '--weftd-args', '--store embedded')
const folder = await mkdtemp(join(tmpdir(), 'weft-move-'))
t.teardown(async () => {
  await lab.close()
  await rm(folder, { recursive: true })
})
const copy = join(folder, 'copy.jsonl')
const state = `${process.env['WEFT_LAB_DIR'] ?? '/var/lib/weft-lab'}/move/h1`
const right = async (): Promise<boolean> => (await lab.try('weft', 'h1', 'status')).code === 0
const run = (name: string) => lab.docker('h1', 'run', '-d', '--network', 'app', '--name', name, 'busybox', ...idle)

await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
await run('one')
await run('two')
const address = await lab.docker('h1', 'inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'two')
await lab.until(right)

t.test('export: a new file of mode 0600, or the standard output', async t => {
  t.match(await lab.weft('h1', 'store', 'export', copy), /records exported/)
  t.equal(await lab.exec('h1', 'stat', '-c', '%a', copy), '600')
  t.equal(await lab.weft('h1', 'store', 'export', '-'), (await readFile(copy, 'utf8')).trim())
  const again = await lab.try('weft', 'h1', 'store', 'export', copy)
  t.equal(again.code, 2)
  t.match(again.err, /copy.jsonl is not written: it is there already/)
})

t.test('import refuses what is no copy, and a store that holds anything', async t => {
  const lines = (await readFile(copy, 'utf8')).trim().split('\n')
  const bad: [string, string[], RegExp][] = [
    ['nothing', [], /the file is empty/],
    ['else', ['{"a":1}'], /line 1: this is no export/],
    ['torn', [...lines.slice(0, 3), lines[3]!.slice(0, 20)], /line 4: no record: the file is damaged/],
    ['foreign', [...lines, '{"key":"what/ever","value":"{}"}'], /store key what\/ever: no record of this weft/],
    ['damaged', [...lines, '{"key":"networks/x","value":"{\\"v\\":1}"}'], /networks\/x/],
    ['headless', lines.filter(line => !line.includes('"cluster"')), /no record of the cluster/],
  ]
  for (const [name, text, says] of bad) {
    const path = join(folder, name)
    await writeFile(path, text.length === 0 ? '' : `${text.join('\n')}\n`)
    const { code, err } = await lab.try('weft', 'h1', 'store', 'import', path)
    t.not(code, 0, name)
    t.match(err, says)
  }
  const missing = await lab.try('weft', 'h1', 'store', 'import', join(folder, 'missing'))
  t.match(missing.err, /missing cannot be read/)
  t.match(await lab.weft('h1', 'store', 'import', copy), /records imported/, 'what is there already may be repeated')
  await run('new')
  t.match(
    (await lab.try('weft', 'h1', 'store', 'import', copy)).err,
    /import into an empty one/,
    'the one it came from has changed since',
  )
})

t.test('the same host on etcd: not a packet lost, not a write to the kernel', async t => {
  await sleep(16_000) // the bridge's forward delay of the last port
  await rm(copy)
  await lab.weft('h1', 'store', 'export', copy)
  const ended = startMonitors(lab, 'h1', await lab.vni('h1', 'app'))
  const lost = startPing(lab, 'h1', 'one', address, 10)
  await lab.ok('stop', 'h1', 'weftd')
  const flags = {
    node: 'h1',
    vtep: '10.9.0.1',
    'underlay-dev': 'eth0',
    store: 'etcd://10.9.0.241:2379',
    'data-dir': `${state}/weft`,
  }
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
  const weftd = lab.background('exec', 'h1', process.execPath, 'dist/main.js', ...args)
  t.teardown(() => weftd.stop())
  const empty = await lab.until(async () => {
    const { out } = await lab.try('weft', 'h1', 'status')
    return /not believed: it is empty/.test(out) ? out : undefined
  })
  t.ok(empty, 'it says that this store is not the one it knows')
  t.match(await lab.weft('h1', 'store', 'import', copy), /records imported/)
  t.ok(await lab.until(right), 'right')
  t.equal(await lost(), 0, 'packets lost')
  t.equal(await ended(), '', 'kernel writes')
  await run('three')
  const { wrong, note } = await openAgreement(lab, ['h1']).agree()
  t.same(wrong, [], note)
})
