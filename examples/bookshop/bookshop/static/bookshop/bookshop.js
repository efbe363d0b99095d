document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const item of document.querySelectorAll(".books li")) {
    item.hidden = !item.textContent.toLowerCase().includes(wanted);
  }
});
