package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
)

// recoverLife is how long a way back in is open.
const recoverLife = 15 * time.Minute

// Recover lets an administrator in who has lost every key: whoever can write the data directory is master of the instance anyhow. It
// gives a link that works once, and leaves a fact in the ledger that everybody sees. It works while the instance runs, and while it
// does not.
func Recover(ctx context.Context, l Layout, person string) (link string, err error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return "", err
	}
	db, err := openDatabase(ctx, l, cfg)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	guard, err := access.NewGuard(db)
	if err != nil {
		return "", err
	}
	code, err := signin.New(db, guard).Issue(ctx, access.Internal("recover"), signin.Grant{
		Caller: person, Kind: access.Person, Roles: []access.Role{access.Admin}, Use: signin.UseOnce, Life: recoverLife,
	})
	if err != nil {
		return "", err
	}
	return cfg.signInLink(code), nil
}

// signInLink is the address that signs a browser in by a code.
func (c Config) signInLink(code string) string {
	return fmt.Sprintf("%s://%s/login?once=%s", c.scheme(), c.consoleHost(), code)
}
