-- Row security of the tables that tms_owner owns. Functions run as tms_owner, and FORCE makes the policies hold for it.
--
-- Guarantee: a function that forgets its own check still shows no row of a tenant the caller is not a member of.

set local role tms_owner;

do $$
declare
  t text;
  mine constant text := '(company_id = any ((select tms._my_companies())::uuid[]) or company_id = any ((select tms._held_companies())::uuid[]))';
begin
  for t in select tablename || '|' || policyname from pg_policies
            where schemaname = 'tms' and 'tms_owner' = any (roles) and tablename not in ('schema_files', 'fence_gate', 'safe_gate') loop
    execute format('drop policy %I on tms.%I', split_part(t, '|', 2), split_part(t, '|', 1));
  end loop;

  -- belong to no tenant: reached through functions only, and those check the role
  foreach t in array '{environment,refusals,flag_catalogue,signals,fence_writes,safe_writes,fence_turn,fence,halts,agent_policies,agent_functions,agent_state,agent_pulse,run_digests,workers,outbox_targets,edge_nonces,edge_rate_limits,latches,seal,drift_scores,halt_certificates,halt_signatures,resume_approvals,resumption,security_blocks,security_known,invariants,invariant_violations,probes,posture_checks,posture_states,posture_actions,ledger,ledger_nodes,ledger_checkpoints,ledger_witnesses,ledger_sealer,evidence_cuts,evidence_packs,queue_samples,signing_keys,evidence_tombstones,incident_halts}'::text[] loop
    execute format('create policy shared on tms.%I to tms_owner using (true) with check (true)', t);
  end loop;

  -- The gates only once: their lock is taken at the commit of whoever holds the others, and who waits for those while holding a gate
  -- would end in a deadlock with them.
  foreach t in array '{fence_gate,safe_gate}'::text[] loop
    if not exists (select from pg_policies p where p.schemaname = 'tms' and p.tablename = t and p.policyname = 'shared') then
      execute format('create policy shared on tms.%I to tms_owner using (true) with check (true)', t);
    end if;
  end loop;

  create policy own_requests on tms.requests to tms_owner
    using (principal_id = (select tms._principal()) or (select tms._sees_all()))
    with check (principal_id = (select tms._principal()));

  execute format('create policy member_read on tms.feature_flags_v2 for select to tms_owner using (company_id is null or (select tms._sees_all()) or %s)', mine);
  -- rows of no tenant are everybody's to read and only fleet-wide roles' to write
  -- one for each command: a policy for all of them would be asked for reads too, and costs the hot path half a millisecond
  execute format('create policy member_insert on tms.feature_flags_v2 for insert to tms_owner with check ((select tms._sees_all()) or %s)', mine);
  execute format('create policy member_write on tms.feature_flags_v2 for update to tms_owner using ((select tms._sees_all()) or %s) with check ((select tms._sees_all()) or %s)', mine, mine);
  execute format('create policy member_delete on tms.feature_flags_v2 for delete to tms_owner using ((select tms._sees_all()) or %s)', mine);

  execute format('create policy member_read on tms.feature_flags_history for select to tms_owner using (company_id is null or (select tms._sees_all()) or %s)', mine);
  execute format('create policy member_append on tms.feature_flags_history for insert to tms_owner with check ((select tms._sees_all()) or %s)', mine);

  execute format('create policy member_read on tms.ledger_inbox for select to tms_owner using ((select tms._sees_all()) or %s)', mine);
  -- anybody's action and anybody's refusal is recorded
  create policy append on tms.ledger_inbox for insert to tms_owner with check (true);

  -- of no tenant: whoever may call the functions
  foreach t in array '{incidents,incident_events,incident_snapshots,incident_levers}'::text[] loop
    execute format('create policy member on tms.%I to tms_owner using (company_id is null or (select tms._sees_all()) or %s) with check (company_id is null or (select tms._sees_all()) or %s)', t, mine, mine);
  end loop;

  -- of no tenant (zeros): what strangers tried at the door
  execute format('create policy member on tms.security_events to tms_owner using (company_id = ''00000000-0000-0000-0000-000000000000'' or (select tms._sees_all()) or %s) with check (company_id = ''00000000-0000-0000-0000-000000000000'' or (select tms._sees_all()) or %s)', mine, mine);
  -- the product's own events: whoever's action they tell about
  foreach t in array '{outbox_events,outbox_keys,outbox_deliveries}'::text[] loop
    execute format('create policy product on tms.%I to tms_owner using (company_id = ''00000000-0000-0000-0000-000000000000'')', t);
  end loop;

  -- the fleet's: machines that span tenants, and members. Not by the held task: that is looked up in these tables.
  foreach t in array '{tenant_state,spend,task_spend,agent_tasks,queues,agent_tasks_history,agent_runs,task_steps,task_effects,agent_logs,agent_metrics,dead_letter_queue,replay_runs,outbox_events,outbox_keys,outbox_deliveries}'::text[] loop
    execute format('create policy fleet on tms.%I to tms_owner using ((select tms._fleet()) or company_id = any ((select tms._my_companies())::uuid[]))', t);
  end loop;
end
$$;
