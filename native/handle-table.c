/* Handles: a slot number below, the slot's generation above, 31 bits in all, so that they fit V8's small integers. */
#include "addon.h"

#include <errno.h>
#include <stdlib.h>

#define SLOT_BITS 14
#define GENERATION_MAX ((1u << (31 - SLOT_BITS)) - 1)

_Static_assert(HANDLES_MAX == 1u << SLOT_BITS, "a handle has room for every slot number");

static int grow(struct handle_table *table) {
  if (table->capacity == HANDLES_MAX) return -EMFILE;
  uint32_t capacity = table->capacity == 0 ? 16 : table->capacity * 2;
  struct handle_slot *slots = realloc(table->slots, capacity * sizeof *slots);
  if (slots == NULL) return -ENOMEM;
  table->slots = slots;
  table->capacity = capacity;
  return 0;
}

int handle_add(struct handle_table *table, void *item, uint32_t *handle) {
  uint32_t number;
  if (table->free_first != 0) {
    number = table->free_first - 1;
    table->free_first = table->slots[number].next_free;
    if (table->free_first == 0) table->free_last = 0;
  } else {
    if (table->size == table->capacity) {
      int status = grow(table);
      if (status < 0) return status;
    }
    number = table->size++;
    /* Generations start at 1, so that 0, which an array that nobody filled holds, is never a handle. */
    table->slots[number].generation = 1;
  }
  table->slots[number].item = item;
  *handle = table->slots[number].generation << SLOT_BITS | number;
  return 0;
}

void *handle_find(const struct handle_table *table, double handle) {
  if (!(handle >= 0 && handle <= INT32_MAX)) return NULL;
  uint32_t whole = (uint32_t)handle;
  uint32_t number = whole & (HANDLES_MAX - 1);
  if ((double)whole != handle || number >= table->size) return NULL;
  const struct handle_slot *slot = &table->slots[number];
  return slot->generation == whole >> SLOT_BITS ? slot->item : NULL;
}

void handle_remove(struct handle_table *table, uint32_t handle) {
  uint32_t number = handle & (HANDLES_MAX - 1);
  struct handle_slot *slot = &table->slots[number];
  slot->item = NULL;
  /* A slot whose generations are used up is retired: better one slot less than a handle that means two things. */
  if (slot->generation == GENERATION_MAX) return;
  slot->generation++;
  slot->next_free = 0;
  if (table->free_last == 0) {
    table->free_first = number + 1;
  } else {
    table->slots[table->free_last - 1].next_free = number + 1;
  }
  table->free_last = number + 1;
}

void handle_table_free(struct handle_table *table) {
  free(table->slots);
  *table = (struct handle_table){0};
}
