package server

import (
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/ledger/scitt"
)

// openProofs opens what hands out proofs to be checked elsewhere.
func (i *Instance) openProofs() error {
	origins, keys := map[string]ledger.Log{}, map[ledger.Log]scitt.LogKey{}
	for log, role := range map[ledger.Log]keyring.Role{ledger.Control: keyring.LogControl, ledger.Events: keyring.LogEvents} {
		key, err := i.newestKey(role)
		if err != nil {
			return err
		}
		origins[i.cfg.origin(log)] = log
		keys[log] = scitt.LogKey{Origin: i.cfg.origin(log), Key: key}
	}
	i.custody = custody.NewService(custody.Config{Store: i.db, Ledger: i.logs.reader, Guard: i.guard, Origins: origins})
	i.receipts = scitt.NewService(scitt.Config{Ledger: i.logs.reader, Guard: i.guard, Keys: keys})
	return nil
}
