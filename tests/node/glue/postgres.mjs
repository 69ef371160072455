// PostgreSQL as PGlite publishes it: functions in PL/pgSQL (a side module), triggers, errors, transactions, queries.
//
// usage: node postgres.mjs FOLDER

const { PGlite } = await import(`${process.argv[2]}/index.js`);
const database = await PGlite.create();

async function show(query, options) {
  try {
    for (const { rows } of await database.exec(query, options)) {
      if (rows.length > 0) console.log(JSON.stringify(rows));
    }
  } catch (error) {
    console.log('error', error.code, error.message);
  }
}

const onNotice = ({ message }) => console.log('notice', message);
await show(`
  CREATE TABLE people
    (id serial PRIMARY KEY, name text NOT NULL, city text, score numeric(8, 2), tags text[], doc jsonb);
  INSERT INTO people (name, city, score, tags, doc)
    SELECT 'person ' || (i * 7919 % 1000), (ARRAY['Oslo', 'Lima', 'Cairo'])[1 + i % 3], i / 3.0,
      ARRAY['a' || i % 4, 'b'], jsonb_build_object('n', i, 'odd', i % 2 = 1)
    FROM generate_series(1, 400) i;
  CREATE INDEX by_city ON people (city, score);
  CREATE FUNCTION factorial(n int) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN
    RAISE NOTICE 'factorial %', n;
    IF n < 2 THEN RETURN 1; END IF;
    RETURN n * factorial(n - 1);
  END $$;
  CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    new.name := upper(new.name);
    IF new.score > 1000 THEN RAISE EXCEPTION 'too much: %', new.score; END IF;
    RETURN new;
  END $$;
  CREATE TRIGGER shouts BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION shout();
`);
await show(`SELECT city, count(*), avg(score)::numeric(10, 3),
    string_agg(name, ',' ORDER BY score DESC) FILTER (WHERE id < 20)
  FROM people GROUP BY city ORDER BY city`);
await show('SELECT factorial(12)', { onNotice });
await show("UPDATE people SET score = score + 1 WHERE city = 'Oslo' AND id < 30 RETURNING id, name, score");
await show('UPDATE people SET score = 2000 WHERE id = 3');
await show('SELECT 1 / 0');
await show('BEGIN; DELETE FROM people; ROLLBACK');
await show(`WITH RECURSIVE walk(n, s) AS
    (SELECT 1, '1' UNION ALL SELECT n + 1, s || ',' || (n + 1) FROM walk WHERE n < 30)
  SELECT max(s) FROM walk`);
await show(`SELECT p.id, q.id AS twice, rank() OVER (PARTITION BY p.city ORDER BY p.score DESC) FROM people p
  JOIN people q ON q.id = p.id * 2 WHERE p.id < 40 ORDER BY 1`);
await show(`SELECT doc->>'n' AS n, tags FROM people
  WHERE doc @> '{"odd": true}' AND 'a3' = ANY(tags) ORDER BY id LIMIT 7`);
await show(`SELECT regexp_replace('one two', '(\\w+) (\\w+)', '\\2 \\1'), md5('x'),
  to_tsvector('english', 'running dogs'), to_char(timestamp '2026-01-02 03:04:05', 'FMDay DD Mon')`);
await show('VACUUM');
await show(`ANALYZE; DO $$ BEGIN FOR i IN 1..5 LOOP
    BEGIN PERFORM 1 / (i - 3);
    EXCEPTION WHEN division_by_zero THEN RAISE NOTICE 'caught %', i; END;
  END LOOP; END $$`, { onNotice });
await show('SELECT count(*) FROM people');
await database.close();
console.log('done');
