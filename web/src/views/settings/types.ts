import type { components } from '@/api/schema'

type Schemas = components['schemas']

export type KeyView = Schemas['KeyView']
export type CreatedKey = Schemas['CreatedKey']
export type SystemStatus = Schemas['SystemStatus']
