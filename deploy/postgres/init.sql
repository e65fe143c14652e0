-- For an administrator, once, in the database that is to be Whisper's: psql -d whisper -f init.sql, then
-- migrations/guard.sql. docker-compose.yml has its Postgres run both when it makes the database.
--
-- `whisper migrate` and `whisper project` are the role whisper: it owns the database and is no superuser. Who reads
-- is a member of whisper_analyst. Other passwords than these belong into every database that others can reach.
CREATE ROLE whisper LOGIN PASSWORD 'whisper' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE whisper_analyst NOLOGIN;
CREATE ROLE analyst LOGIN PASSWORD 'analyst' IN ROLE whisper_analyst;
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I OWNER TO whisper', current_database());
END $$;
