-- Answered requests whose answer lacks a generation: refused, filtered, empty, or unfit for its schema.

CREATE TABLE rejections (
    request INTEGER PRIMARY KEY REFERENCES requests,
    code TEXT,
    error TEXT NOT NULL
);
