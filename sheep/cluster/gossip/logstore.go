package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	be = binary.BigEndian // keys: bbolt sorts bytes
	le = binary.LittleEndian
)

// The buckets of the database, as disks have them.
var (
	logBucket    = []byte("log")    // Raft's entries, by index
	stableBucket = []byte("stable") // Raft's term and vote
	selfBucket   = []byte("self")   // what this node knows of itself and its peers
)

// errRot says that the log on the disk is not what was written.
var errRot = errors.New("checksum of a log entry does not match")

// A logStore keeps Raft's log and state in a database.
type logStore struct{ db *bbolt.DB }

var (
	_ raft.LogStore    = (*logStore)(nil)
	_ raft.StableStore = (*logStore)(nil)
)

// openLogStore opens the database at path, which nobody else may have open.
func openLogStore(path string) (*logStore, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        2 * time.Second,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another process uses it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{logBucket, stableBucket, selfBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &logStore{db}, nil
}

// FirstIndex implements raft.LogStore.
func (s *logStore) FirstIndex() (uint64, error) {
	return s.edge((*bbolt.Cursor).First)
}

// LastIndex implements raft.LogStore.
func (s *logStore) LastIndex() (uint64, error) {
	return s.edge((*bbolt.Cursor).Last)
}

func (s *logStore) edge(move func(*bbolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if key, _ := move(tx.Bucket(logBucket).Cursor()); key != nil {
			index = be.Uint64(key)
		}
		return nil
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(logBucket).Get(be.AppendUint64(nil, index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		if err := decodeLog(v, l); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		l.Index = index
		return nil
	})
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		b.FillPercent = 0.9 // indexes grow: no page is split in the middle
		for _, l := range logs {
			if err := b.Put(be.AppendUint64(nil, l.Index), appendLog(nil, l)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(low, high uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		for key, _ := c.Seek(be.AppendUint64(nil, low)); key != nil && be.Uint64(key) <= high; key, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// logHeader is what precedes the data of an entry. Integers are little-endian.
//
//	offset  size  field
//	     0     4  CRC-32C of what follows
//	     4     1  type
//	     5     8  term
//	    13     8  when the leader appended it, nanoseconds since 1970; 0 if unknown
//	    21     4  length of the extensions
//	    25        extensions, data
const logHeader = 25

func appendLog(b []byte, l *raft.Log) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(l.Type))
	b = le.AppendUint64(b, l.Term)
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = le.AppendUint64(b, uint64(at))
	b = le.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(append(b, l.Extensions...), l.Data...)
	le.PutUint32(b[start:], crc32.Checksum(b[start+4:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// decodeLog decodes what appendLog wrote. It copies what l keeps.
func decodeLog(v []byte, l *raft.Log) error {
	if len(v) < logHeader || le.Uint32(v) != crc32.Checksum(v[4:], crc32.MakeTable(crc32.Castagnoli)) {
		return errRot
	}
	ext := int64(le.Uint32(v[21:]))
	if ext > int64(len(v)-logHeader) {
		return errRot
	}
	*l = raft.Log{Type: raft.LogType(v[4]), Term: le.Uint64(v[5:])}
	if at := int64(le.Uint64(v[13:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	body := append([]byte(nil), v[logHeader:]...)
	if ext > 0 {
		l.Extensions = body[:ext:ext]
	}
	l.Data = body[ext:]
	return nil
}

// errNoKeyFound has the text that Raft looks for when nothing was kept yet.
var errNoKeyFound = errors.New("not found")

// Set implements raft.StableStore.
func (s *logStore) Set(key, value []byte) error {
	return s.put(stableBucket, key, value)
}

// Get implements raft.StableStore.
func (s *logStore) Get(key []byte) ([]byte, error) {
	v, err := s.get(stableBucket, key)
	if err == nil && v == nil {
		err = errNoKeyFound
	}
	return v, err
}

// SetUint64 implements raft.StableStore.
func (s *logStore) SetUint64(key []byte, n uint64) error {
	return s.Set(key, le.AppendUint64(nil, n))
}

// GetUint64 implements raft.StableStore.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%q has %d bytes", key, len(v))
	}
	return le.Uint64(v), nil
}

func (s *logStore) put(bucket, key, value []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, value) })
}

func (s *logStore) remove(bucket, key []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Delete(key) })
}

// get returns a copy of a value, or nil.
func (s *logStore) get(bucket, key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucket).Get(key); v != nil {
			value = append([]byte{}, v...)
		}
		return nil
	})
	return value, err
}

// wipe forgets Raft's log and state, but not this node's.
func (s *logStore) wipe() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{logBucket, stableBucket} {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *logStore) close() error { return s.db.Close() }
