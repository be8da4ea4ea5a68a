-- The role that the service runs as on Postgres. Run it as the owner of the tables, after every
-- `flask --app app.wsgi migrate` (which runs as the owner too), then give DATABASE_URL this role.
-- The role can add to what was said and never change or delete it; the triggers of the migrations refuse the same to
-- everybody, the owner included, until somebody drops them.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'trader_app') THEN
    CREATE ROLE trader_app LOGIN;  -- then: ALTER ROLE trader_app PASSWORD '…'
  END IF;
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO trader_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO trader_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO trader_app;

-- What was said stays said.
REVOKE UPDATE, DELETE, TRUNCATE ON order_events, audit_seals, audit_seal_heads, trading_state_history, config_versions
  FROM trader_app;
-- An order's row moves from state to state, and is never deleted.
REVOKE DELETE, TRUNCATE ON orders FROM trader_app;
-- The schema is the owner's business.
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON alembic_version FROM trader_app;
