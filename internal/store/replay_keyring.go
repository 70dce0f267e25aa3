package store

import (
	"encoding/json"
	"slices"

	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
)

// replayedKey is what a fact says of an online key.
type replayedKey struct {
	Name    string       `json:"name"`
	Purpose keyring.Role `json:"purpose"`
	KID     string       `json:"kid"`
	SPKI    []byte       `json:"spki"`
}

// replayOnlineKey brings back that a key stands beside those the instance was made with. Its private part is in the key directory, or lost.
func replayOnlineKey(tx *Tx, f ledger.Fact) (bool, error) {
	var k replayedKey
	if err := json.Unmarshal(f.Data, &k); err != nil || !slices.Contains(keyring.Roles(), k.Purpose) {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO online_key (name, role, kid, spki, created) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		k.Name, string(k.Purpose), k.KID, k.SPKI, Millis(f.At)))
}

// replayKeyRetired brings back that nothing is signed with a key any more.
func replayKeyRetired(tx *Tx, f ledger.Fact) (bool, error) {
	var k replayedKey
	if err := json.Unmarshal(f.Data, &k); err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO online_key (name, role, kid, spki, created, retired) VALUES ($1, $2, $3, $4, 0, $5)
		ON CONFLICT (name) DO UPDATE SET retired = excluded.retired WHERE online_key.retired = 0`, k.Name, string(k.Purpose), k.KID, k.SPKI, Millis(f.At)))
}
