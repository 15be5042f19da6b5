import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import { api, ask } from '@/api/client'
import type { SessionView } from '@/api/types'

/** Who is signed in. */
export const useSession = defineStore('session', () => {
  const view = ref<SessionView | null>(null)
  let forgotten: string | null = null
  const signedIn = computed(() => view.value?.signed_in === true)
  const owner = computed(() => view.value?.owner ?? '')
  const isAdmin = computed(() => view.value?.scopes?.includes('admin') === true)

  /** Ask the server once who this browser is. */
  async function know(): Promise<void> {
    if (view.value === null) view.value = await ask(api.GET('/v1/session'))
  }

  /** Sign in; return whether this page holds what belongs to somebody else. */
  async function signIn(key: string): Promise<boolean> {
    view.value = await ask(api.POST('/v1/session', { body: { key } }))
    return forgotten !== null && forgotten !== owner.value
  }

  async function signOut(): Promise<void> {
    await ask(api.DELETE('/v1/session'))
    forget()
  }

  /** The server no longer knows who this is. */
  function forget(): void {
    forgotten = view.value?.owner ?? forgotten
    // Nothing of a session is left in its tab.
    sessionStorage.clear()
    view.value = { signed_in: false, owner: null, key_id: null, scopes: null, expires_at: null }
  }

  return { view, signedIn, owner, isAdmin, know, signIn, signOut, forget }
})
