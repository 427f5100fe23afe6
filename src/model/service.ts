// SPDX-License-Identifier: Apache-2.0
// Which containers are one service: those that carry the same `weft.service` label, else those of one compose project
// and service, else a container by itself.
import type { Endpoint, Workload } from './endpoint.ts'
import type { EndpointId, NetworkId } from './ids.ts'
import type { Snapshot } from './snapshot.ts'

export const serviceLabel = 'weft.service'

export interface ServiceName {
  readonly by: 'label' | 'compose' | 'container'
  readonly project?: string
  readonly name: string
}

export const serviceOf = ({ name, labels, project, service }: Workload): ServiceName => {
  const label = labels[serviceLabel]
  if (label !== undefined) return { by: 'label', name: label }
  if (project !== undefined && service !== undefined) return { by: 'compose', project, name: service }
  return { by: 'container', name }
}

/** Key of the service that an endpoint is of; undefined until it is known who it is. */
export const endpointService = ({ workload, service }: Endpoint): string | undefined =>
  workload ? serviceKey(serviceOf(workload)) : service

/** The same by id, of the endpoints of one network. */
export const servicesIn =
  (snapshot: Pick<Snapshot, 'endpoints'>, network: NetworkId) =>
  (id: EndpointId): string | undefined => {
    const endpoint = snapshot.endpoints(network).get(id)?.record
    return endpoint && endpointService(endpoint)
  }

/** 'label web', 'compose shop web', 'container web': equal exactly for containers of one service of a network. */
export const serviceKey = ({ by, project, name }: ServiceName): string =>
  [by, ...(project === undefined ? [] : [project]), name].map(encodeURIComponent).join(' ')

export const parseServiceKey = (key: string): ServiceName => {
  const [by, ...rest] = key.split(' ').map(decodeURIComponent) as [ServiceName['by'], ...string[]]
  const name = rest.pop() ?? ''
  return { by, ...(rest[0] === undefined ? {} : { project: rest[0] }), name }
}

/** For people: 'web', or 'shop/web' of a compose project. */
export const serviceTitle = (key: string): string => {
  const { project, name } = parseServiceKey(key)
  return project === undefined ? name : `${project}/${name}`
}
