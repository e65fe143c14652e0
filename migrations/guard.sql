-- Bounds what analysts can do in Whisper's database beyond reading. `whisper migrate` runs this each time, as
-- far as its user may; an administrator can run it whole: psql -d whisper -f guard.sql. It is safe to repeat.
--
-- All of it is open to everybody in a new Postgres database, so it is taken from PUBLIC and given to those who
-- write: the database's owner, and who may insert into Whisper's tables.
DO $$
DECLARE
    analyst CONSTANT oid := (SELECT oid FROM pg_roles WHERE rolname = 'whisper_analyst');
    deliveries CONSTANT regclass := to_regclass('whisper.deliveries');
    writers text;
    f record;
    r record;
BEGIN
    IF analyst IS NULL THEN
        RETURN;
    END IF;
    SELECT string_agg(format('%I', rolname), ', ') INTO writers FROM pg_roles
    WHERE NOT rolsuper AND rolname !~ '^pg_' AND NOT pg_has_role(oid, analyst, 'USAGE') AND coalesce(has_table_privilege(oid, deliveries, 'INSERT'), false);
    writers := concat_ws(', ', 'pg_database_owner', writers);

    -- Temporary tables: they fill the disk, and sort and join there.
    IF has_database_privilege(analyst, current_database(), 'TEMP') THEN
        BEGIN
            EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
            EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %s', current_database(), writers);
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END IF;

    -- Tables in the schema public, which a database that is older than Postgres 15 lets everybody make.
    IF to_regnamespace('public') IS NOT NULL AND has_schema_privilege(analyst, 'public', 'CREATE') THEN
        BEGIN
            REVOKE CREATE ON SCHEMA public FROM PUBLIC;
            EXECUTE format('GRANT CREATE ON SCHEMA public TO %s', writers);
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END IF;

    -- Large objects, which are rows of nobody's table; messages in the write-ahead log, which fill the disk; and
    -- advisory locks, by which migrations, projectors and a rebuild wait for each other: whoever takes one stops them
    -- all.
    FOR f IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace
        AND (p.proname ~ '^pg_(try_)?advisory_' OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'lo_put', 'lowrite', 'pg_logical_emit_message'))
        AND has_function_privilege(analyst, p.oid, 'EXECUTE')
    LOOP
        BEGIN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.name);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f.name, writers);
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END LOOP;

    -- A question that runs for hours keeps dead rows from being cleaned up, as a transaction does that is left open.
    -- Settings of a role are of who logs in by it, not of its members, so each member gets each of them, unless it has
    -- its own.
    FOR r IN
        SELECT rolname, setting FROM pg_roles, unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout']) AS setting
        WHERE NOT rolsuper AND pg_has_role(oid, analyst, 'MEMBER') AND (rolcanlogin OR oid = analyst)
        AND NOT coalesce(has_table_privilege(oid, deliveries, 'INSERT'), false)
        AND NOT EXISTS (
            SELECT FROM pg_db_role_setting s JOIN pg_database d ON s.setdatabase IN (0, d.oid) AND d.datname = current_database(),
                unnest(s.setconfig) AS own
            WHERE s.setrole = pg_roles.oid AND starts_with(own, setting || '=')
        )
    LOOP
        BEGIN
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET %I = %L', r.rolname, current_database(), r.setting, '5min');
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END LOOP;
END $$;
