PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INT);
CREATE INDEX by_price ON item(price, name);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO item SELECT i, printf('item %05d %x', i, i * 2654435761 % 4294967296), i * 1.1 / 7 + sin(i), i * i % 997 FROM n;
COMMIT;
UPDATE item SET price = round(price * 1.0725, 2) WHERE stock % 3 = 0;
DELETE FROM item WHERE id % 11 = 5;
SELECT count(*), total(price), avg(price), min(name), max(stock) FROM item;
SELECT stock % 7, count(*), sum(price), group_concat(id % 10, '') FROM (SELECT * FROM item ORDER BY id LIMIT 70) GROUP BY 1;
SELECT id, name, price, rank() OVER (ORDER BY price DESC), avg(price) OVER (ORDER BY id ROWS 5 PRECEDING) FROM item ORDER BY price DESC LIMIT 12;
SELECT a.id, b.id, a.price + b.price FROM item a JOIN item b ON a.stock = b.stock AND a.id < b.id ORDER BY 3 DESC, 1 LIMIT 8;
SELECT pow(1.0001, 12345), ln(7), atan2(1, 3), 1e308 * 10, 9223372036854775807 + 1, 5 / 2, -7 % 3, 0.1 + 0.2, 1 / 3.0;
SELECT hex(zeroblob(4)), quote(1e-310), quote(0.1), printf('%.20g %!.17g', 0.1, 1 / 3.0), typeof(9223372036854775808);
SELECT json_group_array(json_object('n', id, 'p', price)) FROM (SELECT * FROM item ORDER BY name LIMIT 5);
CREATE VIRTUAL TABLE words USING fts5(body);
INSERT INTO words SELECT name || ' stock ' || stock FROM item LIMIT 500;
SELECT count(*), round(sum(rank), 6) FROM words WHERE words MATCH 'stock AND 9*';
WITH RECURSIVE x(v) AS (SELECT -2.0 UNION ALL SELECT v + 0.1 FROM x WHERE v < 1.2), y(v) AS (SELECT -1.0 UNION ALL SELECT v + 0.2 FROM y WHERE v < 1.0),
    m(n, cx, cy, x, y) AS (SELECT 0, x.v, y.v, 0.0, 0.0 FROM x, y UNION ALL
        SELECT n + 1, cx, cy, x * x - y * y + cx, 2 * x * y + cy FROM m WHERE x * x + y * y < 4 AND n < 20)
    SELECT cy, group_concat(substr(' .+*#', 1 + min(n / 5, 4), 1), '') FROM (SELECT max(n) n, cx, cy FROM m GROUP BY cx, cy) GROUP BY cy;
PRAGMA integrity_check;
VACUUM;
PRAGMA page_count;
