import type { components } from '@/api/schema'

type Schemas = components['schemas']

export type Worker = Schemas['WorkerDetail']
export type Ledger = Schemas['Ledger']
export type Activity = Schemas['Activity']
export type Queue = Schemas['QueueView']
export type CurrentJob = Schemas['CurrentJob']
