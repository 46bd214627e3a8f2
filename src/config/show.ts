import { masked } from './secrets.ts'
import { settingNames, settingsTable, type SettingName, type Settings } from './settings.ts'

export type ShownSettings = {
  readonly file: string | null
  readonly profile: string | null
  readonly settings: readonly {
    readonly name: SettingName
    /** Secrets are masked; null when nothing sets it. */
    readonly value: string | number | null
    readonly from: string | null
    readonly variable: string
  }[]
}

/** The settings as they may be shown to anybody: every value, where it came from, no secret. */
export function showSettings(settings: Settings): ShownSettings {
  return {
    file: settings.file,
    profile: settings.profile,
    settings: settingNames.map((name) => {
      const value = settings.values[name]
      return {
        name,
        value: value === undefined ? null : masked(name, value),
        from: settings.sources[name] ?? null,
        variable: settingsTable[name].variable,
      }
    }),
  }
}
