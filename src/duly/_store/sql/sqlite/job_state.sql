-- Only the state: asked each time a running action schedules something (rule C2).
SELECT state FROM _scheduled_functions WHERE id = ?1;
