package server

import (
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/ledger/scitt"
)

// openProofs opens what hands out proofs to be checked elsewhere.
func (i *Instance) openProofs() error {
	origins, keys := map[string]ledger.Log{}, map[ledger.Log]scitt.LogKey{}
	for log, name := range map[ledger.Log]string{ledger.Control: keyLogControl, ledger.Events: keyLogEvents} {
		key, err := i.keys.Signer(name)
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
