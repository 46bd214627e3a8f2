-- Posture: probes, what was seen, what was done about it.

set local role tms_owner;
