import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import { api, ask } from '@/api/client'
import type { SessionView } from '@/api/types'

/** Who is signed in. */
export const useSession = defineStore('session', () => {
  const view = ref<SessionView | null>(null)
  const signedIn = computed(() => view.value?.signed_in === true)
  const owner = computed(() => view.value?.owner ?? '')
  const isAdmin = computed(() => view.value?.scopes?.includes('admin') === true)

  /** Ask the server once who this browser is. */
  async function know(): Promise<void> {
    if (view.value === null) view.value = await ask(api.GET('/v1/session'))
  }

  async function signIn(key: string): Promise<void> {
    view.value = await ask(api.POST('/v1/session', { body: { key } }))
  }

  async function signOut(): Promise<void> {
    await ask(api.DELETE('/v1/session'))
    forget()
  }

  function forget(): void {
    view.value = { signed_in: false, owner: null, key_id: null, scopes: null, expires_at: null }
  }

  return { view, signedIn, owner, isAdmin, know, signIn, signOut, forget }
})
