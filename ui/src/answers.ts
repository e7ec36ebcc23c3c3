// The objects that the HTTP API answers with: docs/api.md.

export type Role = "operator" | "auditor" | "investigator";

export interface Me {
  name: string;
  role: Role;
}

export interface ServerMessage {
  sqlstate: string;
  message: string;
  [part: string]: string;
}

export interface Outcome {
  index: number;
  tag?: string;
  tags?: string[];
  rows?: number;
  bytes?: number;
  duration_us?: number;
  tx?: "I" | "T" | "E";
  committed?: boolean;
  skipped?: boolean;
  suspended?: boolean;
  discarded?: boolean;
  error?: ServerMessage;
}

export interface Param {
  type?: string;
  format: string;
  value: string | null;
  raw?: string;
}

export interface Statement {
  index: number;
  time: string;
  session?: string;
  user?: string;
  database?: string;
  application?: string;
  client?: string;
  kind: string;
  statement?: string;
  params?: Param[];
  malformed?: boolean;
  unavailable?: boolean;
  too_large?: boolean;
  facts?: Record<string, string>;
  outcome?: Outcome;
  error?: ServerMessage;
  notice?: ServerMessage;
  request?: string;
  messages?: number;
  bytes?: number;
  sql?: { class: string[]; relations?: string[]; fingerprint?: string; complete?: boolean };
}

/** The answer about one entry. */
export interface Entry extends Statement {
  leaf: Record<string, unknown>;
  value?: string;
  rendering?: string;
}

export interface Session {
  session: string;
  user?: string;
  database?: string;
  application?: string;
  client?: string;
  first: number;
  last: number;
  begin: string;
  end: string;
  connected: boolean;
  open: boolean;
  statements: number;
  errors: number;
  rolled_back: number;
  rows: number;
}

export interface Status {
  version: string;
  origin: string;
  started: string;
  now: string;
  ready: boolean;
  problem?: string;
  durability: string;
  listen: string;
  upstream: string;
  entries: number;
  checkpoint_size: number;
  checkpoint_root?: string;
  checkpoint_time?: string;
  sessions: number;
  sessions_total: number;
  statements_total: number;
  refusals_total: number;
  bytes_total: number;
  backlog_bytes: number;
  log_bytes_total: number;
  batch_entries: number;
  commits: { bounds_s: number[]; counts: number[]; sum_s: number };
  sinks?: { name: string; next: number; lag_entries: number; lag_s: number; sent_total: number; failures_total: number }[];
  witnesses?: { size: number; cosignatures_total: number; failures_total: number; alarms_total: number; keys: string[] };
  interruptions?: { since: string; gaps: number; recoveries: number; violations: number; starts: number; stops: number; first_entry: number; first_value: number };
}
