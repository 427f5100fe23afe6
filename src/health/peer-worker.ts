// SPDX-License-Identifier: Apache-2.0
// The thread that asks (peer-thread starts it). It ends by itself when it is told to: Node does not survive that a
// thread is terminated while it still compiles.
import { parentPort } from 'node:worker_threads'
import { systemClock } from '../base/clock.ts'
import { netnsInode } from '../netlink/netns.ts'
import { openEcho } from './echo.ts'
import { openPeerProbes } from './peer-probes.ts'
import type { Order } from './peers.ts'

const port = parentPort!
const probes = openPeerProbes({
  open: openEcho,
  identity: netnsInode,
  report: report => port.postMessage(report),
  clock: systemClock,
})
port.on('message', (order: Order | 'stop') => {
  if (order === 'stop') {
    probes.close()
    return port.close()
  }
  probes.drop(order.drop)
  probes.add(order.add)
})
// also after an exception: descriptors belong to the process, not to the thread
process.once('exit', () => probes.close())
