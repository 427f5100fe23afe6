// SPDX-License-Identifier: Apache-2.0
// A container leaves each of its networks in turn and comes back, also to others than it left.
import type { Test } from 'tap'
import type { Lab } from './lab.ts'

/**
 * `moves` of h1 is on network app and joins s1 and s2, which must be there and go at the end, as it does. `resolves`
 * asserts that names are answered; `routes` gives its routes to resolvers, one for each network.
 */
export const leaveInTurn = async (
  t: Test,
  lab: Lab,
  routes: () => Promise<readonly string[]>,
  resolves: (when: string) => Promise<void>,
): Promise<void> => {
  const answered = async (when: string): Promise<void> => {
    await resolves(when)
    t.comment((await routes()).join(' | '))
  }
  for (const name of ['s1', 's2']) await lab.docker('h1', 'network', 'connect', name, 'moves')
  t.equal((await routes()).length, 3)
  await answered('on three networks')
  for (const [left, back] of [
    ['app', 'app'],
    ['s1', 's1'],
    ['s2', undefined],
    ['app', 's2'],
    ['s1', undefined],
  ] as const) {
    await lab.docker('h1', 'network', 'disconnect', left, 'moves')
    await answered(`without ${left}`)
    if (back === undefined) continue
    await lab.docker('h1', 'network', 'connect', back, 'moves')
    await answered(`with ${back} again`)
  }
  await lab.docker('h1', 'rm', '-f', 'moves')
  for (const name of ['s1', 's2']) await lab.docker('h1', 'network', 'rm', name)
}
