// SPDX-License-Identifier: Apache-2.0
// Which containers are one service: those that carry the same `weft.service` label, else those of one compose project
// and service, else a container by itself.
import type { Endpoint, Workload } from './endpoint.ts'

export const serviceLabel = 'weft.service'

/** Share of a container in the new connections of its service, 0 to 1000. */
export const weightLabel = 'weft.weight'
const mostWeight = 1000

export interface ServiceName {
  readonly by: 'label' | 'compose' | 'container'
  readonly project?: string
  readonly name: string
}

export const serviceOf = ({ name, labels, project, service }: Workload): ServiceName => {
  const label = labels[serviceLabel]
  if (label !== undefined && isName(label)) return { by: 'label', name: label }
  if (project !== undefined && service !== undefined) return { by: 'compose', project, name: service }
  return { by: 'container', name }
}

/** It becomes part of a key in the store, and a name, which terminals show. */
const longestName = 255
const isName = (label: string): boolean => label.trim() !== '' && label.length <= longestName && !/\p{Cc}/u.test(label)

/** Key of the service that an endpoint is of; undefined until it is known who it is. */
export const endpointService = ({ workload, service }: Endpoint): string | undefined =>
  workload ? serviceKey(serviceOf(workload)) : service

/** vips/<network>/<service key>: the service's virtual addresses, one of each family of the network, IPv4 first. */
export interface Vip {
  readonly addresses: readonly string[]
}

/**
 * Key of the service, if it is to have virtual addresses: one made by the label, or of compose where it publishes a
 * port. A container by itself has none: whoever asks it by its own address is not tracked.
 */
export const vipService = ({ workload, ports }: Endpoint): string | undefined => {
  if (!workload) return undefined
  const service = serviceOf(workload)
  const has = service.name !== '' && (service.by === 'label' || (service.by === 'compose' && ports.length > 0))
  return has ? serviceKey(service) : undefined
}

/** The same, unless it is a container by itself: those have no members to look up. */
export const sharedService = (endpoint: Endpoint): string | undefined => {
  const service = endpointService(endpoint)
  return service?.startsWith('container ') ? undefined : service
}

/** 'label web', 'compose shop web', 'container web': equal exactly for containers of one service of a network. */
export const serviceKey = ({ by, project, name }: ServiceName): string =>
  [by, ...(project === undefined ? [] : [project]), name].map(encodeURIComponent).join(' ')

export const parseServiceKey = (key: string): ServiceName => {
  const [by, ...rest] = key.split(' ').map(decodeURIComponent) as [ServiceName['by'], ...string[]]
  const name = rest.pop() ?? ''
  return { by, ...(rest[0] === undefined ? {} : { project: rest[0] }), name }
}

/** Throws if it is no key that serviceKey gives. */
export const checkServiceKey = (key: string): void => {
  const parsed = parseServiceKey(key)
  const parts = parsed.by === 'compose' ? 3 : 2
  if (!['label', 'compose', 'container'].includes(parsed.by) || key.split(' ').length !== parts)
    throw new Error(`${JSON.stringify(key)} is no key of a service`)
}

/** For people: 'web', or 'shop/web' of a compose project. */
export const serviceTitle = (key: string): string => {
  const { project, name } = parseServiceKey(key)
  return project === undefined ? name : `${project}/${name}`
}

const isWeight = (label: string): boolean => /^\d{1,4}$/.test(label) && Number(label) <= mostWeight

/** What its label says, and 1 where it says nothing that can be read (`labelProblems`). */
export const weightOf = ({ workload }: Endpoint): number => {
  const label = workload?.labels[weightLabel]
  return label !== undefined && isWeight(label) ? Number(label) : 1
}

/** What is wrong with the labels of a container, in sentences. */
export const labelProblems = ({ workload }: Endpoint): readonly string[] => {
  const service = workload?.labels[serviceLabel]
  const weight = workload?.labels[weightLabel]
  return [
    ...(service === undefined || isName(service)
      ? []
      : [
          `label ${serviceLabel} is empty, longer than ${longestName} characters or has control characters: it is taken for none`,
        ]),
    ...(weight === undefined || isWeight(weight)
      ? []
      : [
          `label ${weightLabel}=${JSON.stringify(weight.slice(0, 20))} is no number from 0 to ${mostWeight}: 1 is used`,
        ]),
  ]
}
