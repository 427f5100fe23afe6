// SPDX-License-Identifier: Apache-2.0
// What each call of the API does: reads from the mirror, verbs of control.
import { describe, WeftError } from '../base/errors.ts'
import type { Network } from '../model/network.ts'
import { schedulers } from '../model/service-options.ts'
import {
  countedMessage,
  endpointMessage,
  networkMessage,
  nodeMessage,
  reconcilerMessage,
  serviceMessages,
  titleOf,
} from './convert.ts'
import { floatingMessage } from './floating.ts'
import type * as wire from './gen/weft.ts'
import type { ApiParts } from './parts.ts'
import { problemsOf } from './problems.ts'
import type { Handlers } from './server.ts'
import { unable } from './unable.ts'

export const apiHandlers = (parts: ApiParts): Handlers => {
  const { snapshot, networks, nodes, bindings } = parts

  const show = (network: Network): wire.Network =>
    networkMessage(network, snapshot, {
      dockerId: bindings.byNetwork(network.id)?.docker,
      problem: parts.networkProblems().get(network.name ?? ''),
    })
  const nodeNamed = (name: string) => {
    const node = snapshot.nodes.get(name)
    if (!node) throw new WeftError('NOT_FOUND', `there is no node ${JSON.stringify(name)}: see weft node ls`)
    return node.record
  }

  const services = (): readonly wire.Service[] => {
    const silent = new Set(parts.silences().map(({ network, node }) => `${network} ${node}`))
    return serviceMessages(
      snapshot,
      key => parts.portProblems().get(key),
      (network, node) => silent.has(`${network} ${node}`),
      (options, virtual) => unable(options, virtual, parts),
      floating => floatingMessage(snapshot, floating, parts.floatingProblems()),
    )
  }
  const serviceNamed = (name: string, network: string): wire.Service => {
    const found = services().filter(
      service =>
        (titleOf(service) === name || service.name === name) && (network === '' || service.network === network),
    )
    if (found.length > 1)
      throw new WeftError(
        'INVALID',
        `there are several: ${found.map(service => `${titleOf(service)} in ${service.network}`).join(', ')}: give --network, or PROJECT/NAME`,
      )
    if (!found[0]) throw new WeftError('NOT_FOUND', `there is no service ${JSON.stringify(name)}: see weft service ls`)
    return found[0]
  }

  return {
    async getStatus() {
      const { available, error, damaged, records } = parts.store()
      return {
        node: parts.node,
        version: parts.version,
        vtep: parts.vtep(),
        balancer: parts.balancer,
        store: {
          available,
          error: error ?? '',
          revision: String(snapshot.revision),
          records,
          damaged: [...damaged].map(([key, why]) => `${key}: ${why}`),
        },
        reconciler: reconcilerMessage(parts.reconciler()),
        dockerError: parts.dockerError() ?? '',
        lastErrors: parts.lastErrors().map(one => ({ ...one })),
        problems: problemsOf(parts, services()),
        networksHere: bindings.bound.size,
        dnsListening: parts.dnsListening(),
        departures: parts.departures(),
        unpublished: parts.reserve.endpoints().length,
        spares: parts.reserve.all().filter(({ state }) => state === 'spare').length,
      }
    },
    async getVersion() {
      const store = await parts.storeVersion().catch(error => `unknown: ${describe(error)}`)
      return { version: parts.version, nodeVersion: process.version, store }
    },
    async listNetworks() {
      const all = [...snapshot.networks.values()].map(({ record }) => show(record))
      return { networks: all.sort((a, b) => a.name.localeCompare(b.name)) }
    },
    async getNetwork({ name }) {
      return show(networks.find(name).record)
    },
    async createNetwork(request, signal) {
      const other = request.options['weft.network']
      if (other !== undefined)
        throw new WeftError(
          'INVALID',
          `--opt weft.network=${other}: weft network create makes a network, and joins none: leave it out, or type docker network create -d weft --ipam-driver weft -o weft.network=${other} --ipam-opt weft.network=${other} ${request.name}`,
        )
      const id = await parts.createNetwork(request, signal)
      return show(networks.find(id).record)
    },
    async removeNetwork({ name, force }, signal) {
      const { record } = networks.find(name)
      const holders = new Set([...snapshot.endpoints(record.id).values()].map(endpoint => endpoint.record.node))
      const living = [...holders].filter(holder => !force || nodes.present(holder))
      if (living.length > 0)
        throw new WeftError(
          'IN_USE',
          `network ${name} has containers on ${living.join(', ')}: stop them first${living.every(holder => !nodes.present(holder)) ? ', or --force, as these nodes are silent' : ''}`,
        )
      await parts.removeNetwork(record.id, force, signal)
      return {}
    },
    async listEndpoints({ network, node }) {
      const ids = network === '' ? [...snapshot.networks.keys()] : [networks.find(network).record.id]
      if (node !== '') nodeNamed(node)
      return {
        endpoints: ids.flatMap(id =>
          [...snapshot.endpoints(id).values()]
            .filter(({ record }) => node === '' || record.node === node)
            .map(({ record }) => endpointMessage(record, snapshot, parts.reserve.has(record.id))),
        ),
      }
    },
    async listServices({ network }) {
      const name = network === '' ? '' : (networks.find(network).record.name ?? network)
      return { services: services().filter(service => name === '' || service.network === name) }
    },
    async getService({ name, network }) {
      const service = serviceNamed(name, network)
      return countedMessage(service, await parts.counters(networks.find(service.network).record.id))
    },
    async createService({ name, network, dev, ...request }, signal) {
      const { record } = networks.find(network)
      const scheduler = schedulers.find(one => one === request.scheduler)
      if (scheduler !== undefined && !parts.schedulers.includes(scheduler))
        throw new WeftError(
          'NOT_SUPPORTED',
          `--scheduler ${request.scheduler}: published ports are balanced here by ${parts.balancer}, which has ${parts.schedulers.join(', ')}: choose one of them, or start weftd with --lb ipvs on every host`,
        )
      await parts.services.create(record.id, name, { ...request, dev: dev === '' ? undefined : dev }, signal)
      // of a label and a container with one name the options are the same
      const title = record.name ?? record.id
      return services().find(one => one.network === title && titleOf(one) === name) ?? serviceNamed(name, title)
    },
    async removeService({ name, network }, signal) {
      await parts.services.remove(networks.find(network).record.id, name, signal)
      return {}
    },
    async drainBackend({ service: name, network, container, undo }, signal) {
      const service = serviceNamed(name, network)
      const { record } = networks.find(service.network)
      const meant = [...snapshot.endpoints(record.id).values()].filter(
        endpoint =>
          endpoint.record.workload?.name === container &&
          service.backends.some(backend => backend.container === container && backend.node === endpoint.record.node),
      )
      if (meant.length === 0)
        throw new WeftError(
          'NOT_FOUND',
          `service ${titleOf(service)} has no container ${JSON.stringify(container)}: see weft service show ${titleOf(service)}`,
        )
      for (const endpoint of meant) await parts.drain(record.id, endpoint.record.id, !undo, signal)
      return serviceNamed(name, network)
    },
    async listNodes() {
      return { nodes: [...snapshot.nodes.values()].map(({ record }) => nodeMessage(record, snapshot)) }
    },
    async getNode({ name }) {
      return nodeMessage(nodeNamed(name), snapshot)
    },
    async drainNode({ name, undo }, signal) {
      await nodes.setDrained(name, !undo, signal)
      return { ...nodeMessage(nodeNamed(name), snapshot), state: undo ? 'up' : 'drained' }
    },
    async removeNode({ name }, signal) {
      return nodes.fence(name, signal)
    },
    async acceptStore() {
      return { idle: !(await parts.acceptStore()) }
    },
    exportStore: () => parts.copyStore(),
    async importStore(records) {
      await parts.restoreStore(records)
      return { records: records.length }
    },
  }
}
