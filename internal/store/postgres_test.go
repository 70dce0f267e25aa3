package store_test

import (
	"testing"

	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// What is shown of the store here is so on every engine, but for tests that are about SQLite.
func TestEverythingOnPostgres(t *testing.T) {
	storetest.AgainOnPostgres(t, "TestListsWalkAlongIndexes", "TestDevicesOfAListAreLookedUp", "TestWhoIsMissingIsLookedUp", "TestKilledAnywhere.*", "TestNodes.*", "TestAStoppedDatabase.*", "TestOneNodeLeads", "TestFactsDoNotWait.*")
}
