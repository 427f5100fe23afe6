// SPDX-License-Identifier: Apache-2.0
// What containers are called inside their networks.
import type { Endpoint } from './endpoint.ts'
import { serviceLabel } from './service.ts'

/**
 * Every name an endpoint answers to inside its network, lower case. The bare name of a service that the label made is
 * not among them: it is the virtual address's (dns/records).
 */
export const namesOf = ({ workload }: Endpoint): readonly string[] => {
  if (!workload) return []
  const { name, aliases, hostname, service, container, labels } = workload
  const label = labels[serviceLabel]
  const names = [name, ...aliases, container.slice(0, 12)]
  if (hostname !== undefined && hostname !== '') names.push(hostname)
  if (service !== undefined) names.push(`tasks.${service}`)
  if (service !== undefined && service !== label) names.push(service)
  return [...new Set(names.map(name => name.toLowerCase()))]
}
