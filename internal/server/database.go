package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// openDatabase opens where the instance keeps what it knows: the file in its data directory, or the server that is configured.
func openDatabase(ctx context.Context, l Layout, cfg Config) (*store.DB, error) {
	if cfg.DB == "" {
		return sqlite.Open(ctx, l.Database())
	}
	return postgres.Open(ctx, cfg.DB)
}

// OpenDatabase opens the database of the instance in a data directory, for who has stolen both.
func OpenDatabase(ctx context.Context, l Layout) (*store.DB, error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return nil, err
	}
	return openDatabase(ctx, l, cfg)
}

// checkDatabase refuses a database that is not this instance's. Any number of nodes may serve one instance from one database; two
// instances in one would sign each other's facts.
func checkDatabase(ctx context.Context, db *store.DB, cfg Config, keys Signers) error {
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		entries, err := db.Entries(ctx, log, 0, 1)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("the database has nothing of the %s log: it is not this instance's, or was lost; name the right one, or replay what was published into it with `hallmark log recover`", log)
		}
		name, origin, err := genesis(entries[0])
		if err != nil {
			return fmt.Errorf("the first entry of the %s log: %w; restore the database", log, err)
		}
		if origin != cfg.origin(log) {
			return fmt.Errorf("the database is that of instance %q, the data directory that of %q: name the right database; nothing was written", name, cfg.Instance)
		}
		key, err := newEdSigner(keys, "log-"+string(log))
		if err != nil {
			return err
		}
		p, err := db.Published(ctx, log)
		if errors.Is(err, ledger.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := ledger.ParseCheckpoint(p.Note, cfg.origin(log), key.Public()); err != nil {
			return fmt.Errorf("the database's %s log was signed by another key than this node's: it is that of another instance called %q, or the node's keys "+
				"are not the instance's: %w; nothing was written", log, cfg.Instance, err)
		}
	}
	return nil
}

// genesis reads a log's first entry: the instance's name and the log's origin.
func genesis(entry []byte) (name, origin string, err error) {
	f, err := wire.DecodeFact(entry)
	if err != nil {
		return "", "", err
	}
	var data struct {
		Origin string `json:"origin"`
	}
	if err := json.Unmarshal(f.Data, &data); err != nil || ledger.Kind(f.Kind) != ledger.KindGenesis {
		return "", "", errors.Join(err, fmt.Errorf("it is of kind %q", f.Kind))
	}
	return f.Subject, data.Origin, nil
}

// vacant refuses to make an instance where there is one, or half of one.
func vacant(tx *store.Tx) error {
	var facts int
	if err := tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM entry LIMIT 1) AS first`).Scan(&facts); err != nil {
		return err
	}
	if facts > 0 {
		return errors.New("the database holds an instance already, or an init that did not end: name an empty one")
	}
	return nil
}
