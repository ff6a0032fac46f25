// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver for QEMU's ivshmem-doorbell that takes all of its MSI-X vectors and
 * keeps a record of each in the shared memory, where the host and user space
 * read them: see shm.h. User space gets at the memory through the device's
 * sysfs file "xenits_shm"; with "xenits_hold" it disables single vectors.
 */
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/smp.h>

#include "shm.h"

#define DRIVER "xenits_ivshmem"

/*
 * Faults to inject, so that the tests can show that they notice: the vector
 * that goes wrong, or -1 for none.
 */
static int break_ignore = -1;
module_param(break_ignore, int, 0444);
MODULE_PARM_DESC(break_ignore, "do not count interrupts of this vector: they look lost");
static int break_once = -1;
module_param(break_once, int, 0444);
MODULE_PARM_DESC(break_once, "ignore every 100th interrupt of this vector: some look lost");
static int break_double = -1;
module_param(break_double, int, 0444);
MODULE_PARM_DESC(break_double, "count interrupts of this vector twice: they look doubled");
static int break_cpu = -1;
module_param(break_cpu, int, 0444);
MODULE_PARM_DESC(break_cpu, "record the next CPU for this vector: they look misrouted");

struct vector {
	struct tasklet_struct publish;
	void __iomem *raised;
	void __iomem *record;
	char name[32];
	unsigned int index;
	int irq;
	/* What the handler knows; only the vector's own handler writes. */
	u64 seen, calls, stale, merged, backwards, cpus;
	unsigned int cpu;
};

struct device_state {
	struct pci_dev *pdev;
	void __iomem *shm;
	unsigned int count;
	struct vector vectors[];
};

static void put(struct vector *vector, unsigned int offset, u64 value)
{
	writeq(value, vector->record + offset);
}

/*
 * Tells the host, which may then ring again. This runs after the interrupt
 * flow has ended: Linux before 6.5 drops an MSI that comes on another CPU
 * while the flow of the last one is still under way on the first, and this is
 * not the loss that we look for.
 */
static void publish(struct tasklet_struct *tasklet)
{
	struct vector *vector = from_tasklet(vector, tasklet, publish);
	u64 seen = READ_ONCE(vector->seen);

	put(vector, XENITS_SHM_REC_CALLS, vector->calls);
	put(vector, XENITS_SHM_REC_STALE, vector->stale);
	put(vector, XENITS_SHM_REC_MERGED, vector->merged);
	put(vector, XENITS_SHM_REC_CPU, vector->cpu);
	put(vector, XENITS_SHM_REC_BACKWARDS, vector->backwards);
	put(vector, XENITS_SHM_REC_CPUS, vector->cpus);
	/* writeq orders itself after the stores before it. */
	put(vector, XENITS_SHM_REC_ACKED, seen);
}

static irqreturn_t handle(int irq, void *data)
{
	struct vector *vector = data;
	u64 raised = readq(vector->raised);
	unsigned int cpu = smp_processor_id();
	int index = vector->index;

	if (index == break_ignore)
		return IRQ_HANDLED;
	if (index == break_once && raised % 100 == 0)
		return IRQ_HANDLED;
	if (index == break_cpu)
		cpu = (cpu + 1) % num_possible_cpus();

	vector->calls += index == break_double ? 2 : 1;
	if (raised == vector->seen)
		vector->stale++;
	else if (raised < vector->seen)
		vector->backwards++;
	else
		vector->merged += raised - vector->seen - 1;
	vector->cpu = cpu;
	vector->cpus |= 1ULL << (cpu % 64);
	WRITE_ONCE(vector->seen, raised);
	tasklet_hi_schedule(&vector->publish);
	return IRQ_HANDLED;
}

static struct device_state *state_of(struct kobject *kobj)
{
	return pci_get_drvdata(to_pci_dev(kobj_to_dev(kobj)));
}

/* Whole, aligned 64-bit words only: that is what the protocol consists of. */
static bool in_words(loff_t off, size_t count)
{
	return !(off % 8) && !(count % 8) && off + count <= XENITS_SHM_SIZE;
}

static ssize_t shm_read(struct file *file, struct kobject *kobj,
			struct bin_attribute *attr, char *buf, loff_t off, size_t count)
{
	struct device_state *state = state_of(kobj);
	size_t i;

	if (!in_words(off, count))
		return -EINVAL;
	for (i = 0; i < count; i += 8)
		*(__le64 *)(buf + i) = cpu_to_le64(readq(state->shm + off + i));
	return count;
}

static ssize_t shm_write(struct file *file, struct kobject *kobj,
			 struct bin_attribute *attr, char *buf, loff_t off, size_t count)
{
	struct device_state *state = state_of(kobj);
	size_t i;

	if (!in_words(off, count))
		return -EINVAL;
	for (i = 0; i < count; i += 8)
		writeq(le64_to_cpu(*(__le64 *)(buf + i)), state->shm + off + i);
	return count;
}

/*
 * "VECTOR 1" disables the vector's LPI at the ITS, "VECTOR 0" enables it. The
 * device does not know, as it would with disable_irq(), and fires on.
 */
static ssize_t xenits_hold_store(struct device *dev, struct device_attribute *attr,
				 const char *buf, size_t count)
{
	struct device_state *state = dev_get_drvdata(dev);
	struct irq_data *data;
	unsigned int vector, hold;

	if (sscanf(buf, "%u %u", &vector, &hold) != 2 || vector >= state->count)
		return -EINVAL;
	data = irq_get_irq_data(state->vectors[vector].irq);
	if (!data || !data->parent_data)
		return -ENODEV;
	if (hold)
		irq_chip_mask_parent(data);
	else
		irq_chip_unmask_parent(data);
	return count;
}

static DEVICE_ATTR_WO(xenits_hold);

static BIN_ATTR(xenits_shm, 0600, shm_read, shm_write, XENITS_SHM_SIZE);

/* Gives the vectors back that were requested before one failed, or all. */
static void release_vectors(struct device_state *state, unsigned int count)
{
	while (count--) {
		struct vector *vector = &state->vectors[count];

		free_irq(vector->irq, vector);
		tasklet_kill(&vector->publish);
	}
}

static int request_vectors(struct device_state *state)
{
	struct pci_dev *pdev = state->pdev;
	unsigned int i;
	int rc;

	for (i = 0; i < state->count; i++) {
		struct vector *vector = &state->vectors[i];

		vector->index = i;
		vector->irq = pci_irq_vector(pdev, i);
		vector->raised = state->shm + XENITS_SHM_OFF_RAISED + i * XENITS_SHM_RAISED_STRIDE;
		vector->record = state->shm + XENITS_SHM_OFF_RECORDS + i * XENITS_SHM_RECORD_STRIDE;
		/* A device that is bound anew goes on where it was. */
		vector->seen = readq(vector->record + XENITS_SHM_REC_ACKED);
		vector->calls = readq(vector->record + XENITS_SHM_REC_CALLS);
		vector->stale = readq(vector->record + XENITS_SHM_REC_STALE);
		vector->merged = readq(vector->record + XENITS_SHM_REC_MERGED);
		vector->backwards = readq(vector->record + XENITS_SHM_REC_BACKWARDS);
		vector->cpus = readq(vector->record + XENITS_SHM_REC_CPUS);
		snprintf(vector->name, sizeof(vector->name), "ivshmem-%s-%u", pci_name(pdev), i);
		tasklet_setup(&vector->publish, publish);
		rc = request_irq(vector->irq, handle, 0, vector->name, vector);
		if (rc) {
			pci_err(pdev, DRIVER ": error %d at vector %u\n", rc, i);
			release_vectors(state, i);
			return rc;
		}
	}
	return 0;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device_state *state;
	int count, rc;

	rc = pcim_enable_device(pdev);
	if (rc)
		return rc;
	rc = pcim_iomap_regions(pdev, BIT(2), DRIVER);
	if (rc)
		return rc;
	pci_set_master(pdev);

	count = pci_msix_vec_count(pdev);
	if (count < 0 || count > XENITS_SHM_VECTORS_MAX) {
		pci_err(pdev, DRIVER ": error: %d MSI-X vectors\n", count);
		return count < 0 ? count : -EINVAL;
	}
	if (pci_resource_len(pdev, 2) < XENITS_SHM_SIZE) {
		pci_err(pdev, DRIVER ": error: shared memory is too small\n");
		return -EINVAL;
	}
	state = devm_kzalloc(&pdev->dev, struct_size(state, vectors, count), GFP_KERNEL);
	if (!state)
		return -ENOMEM;
	state->pdev = pdev;
	state->count = count;
	state->shm = pcim_iomap_table(pdev)[2];
	if (readq(state->shm + XENITS_SHM_OFF_MAGIC) != XENITS_SHM_MAGIC) {
		pci_err(pdev, DRIVER ": error: no raiser has prepared the shared memory\n");
		return -ENODEV;
	}
	rc = pci_alloc_irq_vectors(pdev, count, count, PCI_IRQ_MSIX);
	if (rc < 0) {
		pci_err(pdev, DRIVER ": error %d: no %d vectors\n", rc, count);
		return rc;
	}
	rc = request_vectors(state);
	if (rc)
		goto free_vectors;
	pci_set_drvdata(pdev, state);
	rc = device_create_bin_file(&pdev->dev, &bin_attr_xenits_shm);
	if (rc)
		goto release;
	rc = device_create_file(&pdev->dev, &dev_attr_xenits_hold);
	if (rc)
		goto remove_memory;
	writeq(count, state->shm + XENITS_SHM_OFF_READY);
	pci_info(pdev, DRIVER ": %d vectors\n", count);
	return 0;

remove_memory:
	device_remove_bin_file(&pdev->dev, &bin_attr_xenits_shm);
release:
	release_vectors(state, state->count);
free_vectors:
	pci_free_irq_vectors(pdev);
	return rc;
}

static void remove(struct pci_dev *pdev)
{
	struct device_state *state = pci_get_drvdata(pdev);

	writeq(0, state->shm + XENITS_SHM_OFF_READY);
	device_remove_file(&pdev->dev, &dev_attr_xenits_hold);
	device_remove_bin_file(&pdev->dev, &bin_attr_xenits_shm);
	release_vectors(state, state->count);
	pci_free_irq_vectors(pdev);
}

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(0x1af4, 0x1110) },
	{ }
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver ivshmem_driver = {
	.name = DRIVER,
	.id_table = ids,
	.probe = probe,
	.remove = remove,
};
module_pci_driver(ivshmem_driver);

MODULE_DESCRIPTION("Counts the MSI-X interrupts of ivshmem-doorbell");
MODULE_LICENSE("GPL");
