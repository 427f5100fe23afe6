// SPDX-License-Identifier: Apache-2.0
// Two Docker hosts, each with weft and in one swarm, so that both overlays run on the same engines, kernel and underlay.
// They are made by scripts/lab inside the section's own namespaces, and go with them.
import { idle, type Lab, openLab } from '../../test/e2e/lab.ts'

export interface Hosts {
  readonly lab: Lab
  /** A container that only sleeps. */
  idle(host: string, name: string, network: string, ...options: string[]): Promise<void>
  /** IPv4 of a container on that network. */
  address(host: string, container: string, network: string): Promise<string>
}

export const weftNetwork = 'app'
/** Docker's own, of the swarm driver, for containers as for services. */
export const overlayNetwork = 'ov'
export const bridgeNetwork = 'user'

const create = ['network', 'create', '-d'] as const

/** Both are in weft's cluster and in the swarm, with one network of each that every host has. */
export const openHosts = async (...options: string[]): Promise<Hosts> => {
  const lab = await openLab('bench', 2, ...options)
  await lab.docker('h1', 'swarm', 'init', '--advertise-addr', '10.9.0.1', '--default-addr-pool', '10.200.0.0/16')
  const token = await lab.docker('h1', 'swarm', 'join-token', '-q', 'worker')
  await lab.docker('h2', 'swarm', 'join', '--token', token, '10.9.0.1:2377')
  await lab.docker('h1', ...create, 'overlay', '--subnet', '10.201.0.0/16', '--attachable', overlayNetwork)
  await lab.docker('h1', ...create, 'weft', '--ipam-driver', 'weft', '--subnet', '10.202.0.0/16', weftNetwork)
  for (const host of ['h1', 'h2'])
    await lab.docker(host, ...create, 'bridge', '--subnet', '10.203.0.0/16', bridgeNetwork)
  await lab.shows('h2', weftNetwork)
  return {
    lab,
    async idle(host, name, network, ...more) {
      await lab.docker(host, 'run', '-d', '--name', name, '--network', network, ...more, 'busybox', ...idle)
    },
    address: (host, container, network) =>
      lab.docker(host, 'inspect', '-f', `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`, container),
  }
}
