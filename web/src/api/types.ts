import type { components } from './schema'

type Schemas = components['schemas']

export type JobView = Schemas['JobView']
export type JobState = JobView['state']
export type ModelView = Schemas['ModelView']
export type AdapterView = Schemas['AdapterView']
export type ResultView = Schemas['ResultView']
export type ResultDetail = Schemas['ResultDetail']
export type BatchSummary = Schemas['BatchSummary']
export type SessionView = Schemas['SessionView']
export type DryRun = Schemas['DryRun']
export type UploadView = Schemas['UploadView']
export type SchedulerView = Schemas['SchedulerView']
export type PreprocessorView = Schemas['PreprocessorView']
export type TokenCounts = Schemas['TokenCounts']
