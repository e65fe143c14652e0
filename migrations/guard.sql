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

    -- Large objects, which are rows of nobody's table; and advisory locks, by which migrations, projectors and a
    -- rebuild wait for each other: whoever takes one stops them all.
    FOR f IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace
        AND (p.proname ~ '^pg_(try_)?advisory_' OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'lo_put', 'lowrite'))
        AND has_function_privilege(analyst, p.oid, 'EXECUTE')
    LOOP
        BEGIN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.name);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f.name, writers);
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END LOOP;

    -- A question that runs for hours keeps dead rows from being cleaned up, as a transaction does that is left open.
    -- Settings of a role are of who logs in by it, not of its members, so each member gets them, unless it has its own.
    FOR r IN
        SELECT oid, rolname FROM pg_roles
        WHERE NOT rolsuper AND pg_has_role(oid, analyst, 'MEMBER') AND (rolcanlogin OR oid = analyst)
        AND NOT coalesce(has_table_privilege(oid, deliveries, 'INSERT'), false)
        AND NOT EXISTS (
            SELECT FROM pg_db_role_setting s JOIN pg_database d ON s.setdatabase IN (0, d.oid) AND d.datname = current_database()
            WHERE s.setrole = pg_roles.oid AND s.setconfig::text LIKE '%statement_timeout=%'
        )
    LOOP
        BEGIN
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET statement_timeout = %L', r.rolname, current_database(), '5min');
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET idle_in_transaction_session_timeout = %L', r.rolname, current_database(), '5min');
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END LOOP;
END $$;
